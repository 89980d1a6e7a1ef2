"""Signals that this process gets and the container shall have."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

#: All that a user or a supervisor sends; job control stays with the shell.
FORWARDED = tuple(
    getattr(signal, f"SIG{name}")
    for name in (
        "HUP",
        "INT",
        "QUIT",
        "TERM",
        "USR1",
        "USR2",
        "ALRM",
        "CONT",
        "VTALRM",
        "PROF",
        "IO",
        "PWR",
    )
)
IMPATIENT = 3


class SignalProxy:
    """Passes signals to the container for as long as it is on.

    The third interrupt ends this process: the container may be one that ignores them.
    """

    def __init__(self, kill: Callable[[str], None]) -> None:
        self._kill = kill
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._before: dict[int, object] = {}
        self._interrupts = 0

    def start(self) -> None:
        """Take the signals over."""
        for number in FORWARDED:
            self._before[number] = signal.signal(number, self._on_signal)
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Give them back."""
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._before.clear()
        self._queue.put("")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self._interrupts += 1
            if self._interrupts >= IMPATIENT:
                sys.stderr.write(f"\ngot {IMPATIENT} SIGTERM/SIGINTs, forcefully exiting\n")
                sys.stderr.flush()
                os._exit(1)
        self._queue.put(signal.Signals(number).name.removeprefix("SIG"))

    def _run(self) -> None:
        while name := self._queue.get():
            try:
                self._kill(name)
            except Exception as error:  # a container that has just ended takes no signals
                if os.environ.get("DEBUG"):
                    sys.stderr.write(f"error sending signal: {error}\n")
