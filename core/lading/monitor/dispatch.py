"""The daemon's thread that reads all monitors' connections."""

from __future__ import annotations

import logging
import select
import threading
from typing import Protocol

log = logging.getLogger(__name__)


class Source(Protocol):
    """Something with a descriptor to read from."""

    def fileno(self) -> int:
        """The descriptor, the same until the source is removed."""
        ...

    def on_readable(self) -> bool:
        """Take what has arrived, without blocking; False when the source has ended."""
        ...


class Dispatcher:
    """One epoll, one thread, any number of sources; callbacks run in that thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, source: Source) -> None:
        """Watch a source until it ends or is removed."""
        with self._lock:
            self._sources[source.fileno()] = source
            self._epoll.register(source.fileno(), select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="monitors", daemon=True)
                self._thread.start()

    def remove(self, source: Source) -> None:
        """Watch it no longer; to be called before its descriptor is closed."""
        with self._lock:
            if self._sources.get(source.fileno()) is source:
                del self._sources[source.fileno()]
                self._epoll.unregister(source.fileno())

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                source = self._sources.get(fd)
                if source is None:
                    continue
                try:
                    alive = source.on_readable()
                except Exception:
                    log.exception("a callback for a monitor's event failed")
                    alive = True
                if not alive:
                    self.remove(source)


#: Serves all monitors of this process.
monitors = Dispatcher()
