"""Namespaces that are attached to the default bridge before a container asks for one.

Making a namespace and a veth pair takes a few milliseconds of the kernel's time; a container
that asks for nothing special takes a ready one instead. The pool fills up again in a thread of
its own, a moment later, so as not to compete with the start of the container.
"""

from __future__ import annotations

import logging
import threading
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
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to fill."""
        if self._size > 0:
            self._thread = threading.Thread(target=self._run, name="network-pool", daemon=True)
            self._thread.start()

    def take(self) -> Ready | None:
        """A ready one, or None when there is none now."""
        try:
            found = self._ready.popleft()
        except IndexError:
            found = None
        self._wake.set()
        return found

    def __len__(self) -> int:
        return len(self._ready)

    def close(self) -> None:
        """Stop filling and drop what is there."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.empty()

    def empty(self) -> None:
        """Drop all that are ready, since what they are attached to has changed."""
        while self._ready:
            self._drop(self._ready.popleft())

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                while len(self._ready) < self._size and not self._closed:
                    self._let_containers_go_first()
                    self._ready.append(self._make())
            except (LadingError, OSError) as error:
                log.warning("ready network namespaces: %s", error)
                self._wake.wait(RETRY_SECONDS)
                continue
            self._wake.wait()

    def _let_containers_go_first(self) -> None:
        while len(self._ready) * 2 >= self._size and not self._closed:
            if not self._wake.wait(QUIET_SECONDS):
                return
            self._wake.clear()
