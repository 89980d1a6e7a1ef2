"""Namespaces that are attached to the default bridge before a container asks for one.

Making a namespace and a veth pair takes a few milliseconds of the kernel's time; a container
that asks for nothing special takes a ready one instead. The pool fills up again in a thread of
its own, a moment later, so as not to compete with the start of the container.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lading.errors import LadingError
from lading.networks.records import EndpointState

#: How long nobody must have asked before a pool that is not low fills up.
QUIET_SECONDS = 0.03

#: After a failure to make one.
RETRY_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A namespace (its name and path) with an endpoint that belongs to nobody yet."""

    namespace: str
    path: str
    endpoint: EndpointState


class Pool:
    """Up to ``size`` ready namespaces; ``make`` and ``drop`` do the work."""

    def __init__(self, size: int, make: Callable[[], Ready], drop: Callable[[Ready], None]) -> None:
        self._size = size
        self._make = make
        self._drop = drop
        self._ready: deque[Ready] = deque()
        self._changed = threading.Condition()
        self._taken_at = float("-inf")
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to fill."""
        if self._size > 0:
            self._thread = threading.Thread(target=self._run, name="network-pool", daemon=True)
            self._thread.start()

    def take(self) -> Ready | None:
        """A ready one, or None when there is none now."""
        with self._changed:
            self._taken_at = time.monotonic()
            self._changed.notify()
            return self._ready.popleft() if self._ready else None

    def __len__(self) -> int:
        return len(self._ready)

    def close(self) -> None:
        """Stop filling and drop what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        while self._ready:
            self._drop(self._ready.popleft())

    def _run(self) -> None:
        while self._wait():
            try:
                made = self._make()
            except (LadingError, OSError) as error:
                log.warning("ready network namespaces: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, RETRY_SECONDS)
            else:
                self._ready.append(made)

    def _wait(self) -> bool:
        """Wait until one should be made; False when the pool is closed."""
        with self._changed:
            while not self._closed:
                if len(self._ready) >= self._size:
                    self._changed.wait()
                    continue
                # Containers go first, unless they would soon find nothing.
                quiet = self._taken_at + QUIET_SECONDS - time.monotonic()
                if quiet <= 0 or len(self._ready) * 2 < self._size:
                    return True
                self._changed.wait(quiet)
            return False
