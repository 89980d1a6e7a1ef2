"""Ending a build before its time: its client has gone, or one of its stages failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lading.errors import Cancelled


class Stop:
    """Whether a build is to end, and what has to be done then. Thread safe."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """End it. A second call does nothing."""
        with self._lock:
            if self.event.is_set():
                return
            self.event.set()
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise Cancelled if it is to end."""
        if self.event.is_set():
            raise Cancelled("the build was cancelled")

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call back, from another thread perhaps, if the end comes inside the context.

        Raises Cancelled if it has come already.
        """
        with self._lock:
            self.check()
            self._callbacks.append(callback)
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)
