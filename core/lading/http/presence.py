"""Notices clients that hang up while their thread is busy with something else.

One thread polls for hang-ups of all connections that somebody wants to know about. It reads no
data, so it disturbs neither requests that were sent ahead nor TLS.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Watch:
    """Polls for hang-ups; the thread starts with the first use."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._lock = threading.Lock()
        self._callbacks: dict[int, list[Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watching(
        self, connected: socket.socket, callback: Callable[[], None], *, both: bool = False
    ) -> Iterator[None]:
        """Call back once if the peer ends its side (``both``: only when it has closed entirely,
        which a unix socket shows, TCP does not)."""
        descriptor = connected.fileno()
        self._add(descriptor, callback, both)
        try:
            yield
        finally:
            self._remove(descriptor, callback)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def _add(self, descriptor: int, callback: Callable[[], None], both: bool) -> None:
        events = select.EPOLLHUP | select.EPOLLONESHOT | (0 if both else select.EPOLLRDHUP)
        with self._lock:
            known = self._callbacks.setdefault(descriptor, [])
            known.append(callback)
            if len(known) == 1:
                self._epoll.register(descriptor, events)
            else:
                self._epoll.modify(descriptor, events)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hang-ups", daemon=True)
                self._thread.start()

    def _remove(self, descriptor: int, callback: Callable[[], None]) -> None:
        with self._lock:
            known = self._callbacks.get(descriptor, [])
            if callback in known:
                known.remove(callback)
            if not known and self._callbacks.pop(descriptor, None) is not None:
                self._epoll.unregister(descriptor)

    def _run(self) -> None:
        while not self._closed:
            for descriptor, _ in self._epoll.poll():
                with self._lock:
                    callbacks = tuple(self._callbacks.get(descriptor, ()))
                    if not _hung_up(descriptor):
                        # It was another connection's, which has been closed since.
                        continue
                for callback in callbacks:
                    try:
                        callback()
                    except Exception:
                        log.exception("after a client hung up")


def _hung_up(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP | select.POLLHUP)
    return any(events & ~select.POLLNVAL for _, events in poll.poll(0))


class ClientPresence:
    """Whether the client of one connection is still there."""

    def __init__(self, connected: socket.socket, watch: Watch) -> None:
        self._socket = connected
        self._watch = watch

    def gone(self) -> bool:
        """Whether the client has ended its side."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    @contextmanager
    def when_gone(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call back, once and from another thread, if the client hangs up inside the context."""
        with self._watch.watching(self._socket, callback):
            yield
