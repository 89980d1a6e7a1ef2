"""A small event loop: epoll, timers, and nothing that an idle monitor would pay memory for."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
HUP: Final = select.EPOLLHUP | select.EPOLLERR
RDHUP: Final = select.EPOLLRDHUP

Callback = Callable[[int], None]


class Timer:
    """A call in the future, unless cancelled."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class Loop:
    """Calls back for descriptors that are ready, level-triggered, and for timers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Callback]] = {}
        self._timers: list[Timer] = []

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call back with the events of ``fd``; replaces what was asked before.

        Hang-ups are reported whatever ``events`` is: to hear nothing, :meth:`forget`.
        """
        if fd in self._watched:
            if self._watched[fd][0] != events:
                self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = (events, callback)

    def forget(self, fd: int) -> None:
        """Hear no more of ``fd``; to be called before it is closed. May be called again."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once after some time."""
        timer = Timer(time.monotonic() + seconds, callback)
        self._timers.append(timer)
        return timer

    def close(self) -> None:
        """Hear of nothing any more. A second call does nothing."""
        self._epoll.close()

    def step(self) -> None:
        """Wait for something to happen and make the calls for it."""
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, min(t.when for t in self._timers) - time.monotonic())
        for fd, events in self._epoll.poll(timeout):
            # An earlier callback of this round may have closed it.
            watched = self._watched.get(fd)
            if watched is not None:
                watched[1](events)
        if self._timers:
            self._expire()

    def _expire(self) -> None:
        now = time.monotonic()
        due = [t for t in self._timers if t.when <= now or t.callback is None]
        self._timers = [t for t in self._timers if t not in due]
        for timer in due:
            if timer.callback is not None:
                timer.callback()
