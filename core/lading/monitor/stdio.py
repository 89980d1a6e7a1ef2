"""Pipes and terminals between a monitor and a process."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from types import TracebackType

from lading.hooks.isolation import Stdio


class Ends:
    """The pipes for one process that is about to be made; closes whatever was not taken.

    Without ``stdin`` the process reads from ``/dev/null``; with ``discard`` it writes there. With
    ``terminal`` there is nothing to make: the backend makes the terminal.
    """

    def __init__(self, *, terminal: bool, stdin: bool, discard: bool = False) -> None:
        self._local = [-1, -1, -1]
        self._remote = [-1, -1, -1]
        if not terminal:
            try:
                self._make(stdin, discard)
            except BaseException:
                self._close()
                raise
        stdin_end, stdout_end, stderr_end = self._remote
        self.stdio = Stdio(stdin_end, stdout_end, stderr_end, terminal)

    def __enter__(self) -> Ends:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def take(self) -> tuple[int, int, int]:
        """Return our ends of stdin, stdout and stderr, which become the caller's; -1 for none."""
        stdin, stdout, stderr = self._local
        self._local = [-1, -1, -1]
        return stdin, stdout, stderr

    def close_remote(self) -> None:
        """Close the process's ends, which it has by now. A second call does nothing."""
        _close(self._remote)

    def _make(self, stdin: bool, discard: bool) -> None:
        if stdin:
            self._remote[0], self._local[0] = os.pipe2(os.O_CLOEXEC)
        else:
            self._remote[0] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for number in (1, 2):
            if discard:
                self._remote[number] = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            else:
                self._local[number], self._remote[number] = os.pipe2(os.O_CLOEXEC)

    def _close(self) -> None:
        self.close_remote()
        _close(self._local)


def _close(fds: list[int]) -> None:
    for number, fd in enumerate(fds):
        if fd >= 0:
            os.close(fd)
        fds[number] = -1


def resize(console: int, rows: int, columns: int) -> None:
    """Set a terminal's size; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(console, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
