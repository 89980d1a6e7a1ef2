"""Taking sandboxes apart after their containers have ended, off everybody's way.

The order matters: a namespace is let go of first, so that the kernel removes its interfaces by
itself, then the backend makes sure of it, and only then the addresses are free again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from lading.backends import under_deadline
from lading.networks.state import Live
from lading.operations import carried, current, within

log = logging.getLogger(__name__)

#: Seconds that a backend may take to disconnect one sandbox: the next ones wait meanwhile.
DETACH_SECONDS = 10.0

#: How long the first of a batch waits for others: whoever waits for the container's end goes first.
GATHER_SECONDS = 0.02


class Releases:
    """A queue of ended sandboxes and the thread that works it off, many at a time."""

    def __init__(self, let_go: Callable[[Live], None], detach: Callable[[Live], None]) -> None:
        self._let_go = let_go
        self._detach = detach
        self._queue: queue.SimpleQueue[tuple[Live, str] | None] = queue.SimpleQueue()
        self._idle = threading.Condition()
        self._pending = 0
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="network-release", daemon=True)
        self._thread.start()

    def put(self, live: Live) -> None:
        """Take one apart soon."""
        with self._idle:
            self._pending += 1
        self._queue.put((live, current()))

    def drain(self, timeout: float = 10.0) -> bool:
        """Wait until everything that was put is done."""
        self._hurry.set()
        with self._idle:
            return self._idle.wait_for(lambda: self._pending == 0, timeout)

    def close(self) -> None:
        """Finish what was put, and end; what does not end is for the next daemon's recovery."""
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(DETACH_SECONDS + 1)

    def _run(self) -> None:
        while True:
            batch: list[tuple[Live, str]] = []
            last = self._queue.get()
            self._hurry.wait(GATHER_SECONDS)
            self._hurry.clear()
            while last is not None:
                batch.append(last)
                try:
                    last = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._each(batch, self._let_go)
            self._each(batch, self._detach_in_time)
            with self._idle:
                self._pending -= len(batch)
                self._idle.notify_all()
            if last is None:
                return

    def _detach_in_time(self, live: Live) -> None:
        under_deadline(carried(lambda: self._detach(live)), DETACH_SECONDS, "detach")

    @staticmethod
    def _each(batch: Sequence[tuple[Live, str]], step: Callable[[Live], None]) -> None:
        for live, operation in batch:
            try:
                with within(operation):
                    step(live)
            except Exception:
                log.exception('release the network of container "%s"', live.container)
