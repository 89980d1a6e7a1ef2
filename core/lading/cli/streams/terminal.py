"""The terminal that the client runs in: raw mode and the window's size."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from types import FrameType, TracebackType

ATTEMPTS = 8


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor is a terminal; a closed one is not."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def window_size(descriptor: int = 1) -> tuple[int, int] | None:
    """Rows and columns; None when it is no terminal."""
    try:
        packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return None
    rows, columns, _, _ = struct.unpack("HHHH", packed)
    return rows, columns


class RawMode:
    """Standard input without echo, line editing and signals, for as long as the body runs.

    Nothing happens when it is no terminal.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._before: list[object] | None = None

    def __enter__(self) -> RawMode:
        if is_terminal(self._descriptor):
            self._before = termios.tcgetattr(self._descriptor)
            tty.setraw(self._descriptor, termios.TCSANOW)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]
            self._before = None


class WindowWatch:
    """Tells a container the window's size: at once, and after each change."""

    def __init__(self, resize: Callable[[int, int], None]) -> None:
        self._resize = resize
        self._changed = threading.Event()
        self._ended = False

    def start(self) -> None:
        """Begin; the process's terminal must exist by now."""
        signal.signal(signal.SIGWINCH, self._on_signal)
        self._changed.set()
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End."""
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        self._ended = True
        self._changed.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._changed.set()

    def _run(self) -> None:
        while self._changed.wait() and not self._ended:
            self._changed.clear()
            size = window_size()
            if size and size != (0, 0):
                self._tell(*size)

    def _tell(self, rows: int, columns: int) -> None:
        """Resize; the process may be a moment away from having its terminal."""
        for attempt in range(ATTEMPTS):
            try:
                self._resize(rows, columns)
            except Exception as error:
                if self._ended:
                    return
                if attempt == ATTEMPTS - 1 and os.environ.get("DEBUG"):
                    sys.stderr.write(f"failed to resize tty: {error}\r\n")
                time.sleep(0.01 * (attempt + 1))
            else:
                return
