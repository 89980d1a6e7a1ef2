"""Reading a container's log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as it was logged: ``data`` with its newline, or without when it was cut.

    ``time`` is in nanoseconds since 1970, ``stream`` is ``stdout`` or ``stderr``.
    """

    time: int
    stream: str
    data: bytes
    attributes: dict[str, str] = field(default_factory=dict)


class Follower:
    """Ends a following reader, from any thread. To be closed by whoever made it."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.finished = False
        self.cancelled = False

    def finish(self) -> None:
        """Tell that the container has ended: the reader ends when it has read everything."""
        self.finished = True
        os.eventfd_write(self._event, 1)

    def cancel(self) -> None:
        """Let the reader end at once."""
        self.cancelled = True
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """A descriptor that is readable once one of both was called."""
        return self._event

    def close(self) -> None:
        """Release the descriptor, after the reader has ended. A second call does nothing."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1


def read_logs(
    path: Path,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int = 0,
    until: int = 0,
    tail: int = -1,
    follow: Follower | None = None,
) -> Iterator[LogLine]:
    """Yield the lines of a log, oldest first, from its rotated files and then the present one.

    ``since`` and ``until`` are nanoseconds since 1970 (0 = no bound); ``tail`` is the number of
    last lines to begin with (< 0 = all), counted before the streams are chosen, as Docker does.
    With ``follow`` it goes on with what is being written, until that is finished or cancelled.
    """
    raise NotImplementedError
