"""The lock of one container: whoever changes the container holds it.

A backend's hook that hangs keeps its request's thread, and with it this lock. So nobody waits for
it without end: once its holder has had it for longer than any hook may take, a request fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lading.errors import Unavailable

#: How much longer than a hook may take its holder may have the lock.
MARGIN = 1.25


class Lock:
    """Reentrant; ``name`` tells whose it is, ``patience`` how many seconds it may be held."""

    def __init__(self, name: Callable[[], str], patience: float) -> None:
        self._name = name
        self._patience = patience
        self._lock = threading.RLock()
        self._depth = 0
        self._since = 0.0
        self._what = ""

    def __enter__(self) -> None:
        """Raises Unavailable when whoever has it does not come to an end."""
        while not self._lock.acquire(timeout=max(0.0, self._left())):
            if self._left() <= 0:
                raise self.busy()
        self._taken()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()

    def _taken(self) -> None:
        if self._depth == 0:
            self._since = time.monotonic()
        self._depth += 1

    def _left(self) -> float:
        """How long its present holder may still have it."""
        return self._since + self._patience - time.monotonic() if self._depth else self._patience

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Hold it for something that may take long, to be named to those who wait in vain."""
        with self:
            before, self._what = self._what, what
            try:
                yield
            finally:
                self._what = before

    @contextmanager
    def patiently(self, what: str) -> Iterator[None]:
        """Likewise, for what must happen in the end however long that takes."""
        self._lock.acquire()
        self._taken()
        try:
            with self.doing(what):
                yield
        finally:
            self.__exit__()

    @property
    def held(self) -> bool:
        """Whether anybody has it."""
        return self._depth > 0

    @property
    def overdue(self) -> bool:
        """Whether somebody has had it for too long."""
        return self._depth > 0 and self._left() <= 0

    def busy(self) -> Unavailable:
        """What to tell who has waited in vain."""
        what, since = self._what or "another request", time.monotonic() - self._since
        return Unavailable(
            f'container "{self._name()}" is busy: {what} has been under way for {since:.0f} s',
            hint="a backend does not answer: see lading doctor; a restart of ladingd, which "
            "containers survive, ends the wait",
        )
