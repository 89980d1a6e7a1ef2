"""What forked processes ask of the kernel about themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lading.linux import syscalls

#: The name of monitors, and of what they fork.
MONITOR = "lading-monitor"


def set_name(name: str) -> None:
    """Set what ``ps`` and ``top`` show, at most 15 bytes: else it is the number of a descriptor."""
    _write("/proc/self/comm", name)


def become_subreaper() -> None:
    """Become the parent of descendants whose own parent ends."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends, also when it ended just now."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def oom_score_adj(value: int) -> None:
    """Set how soon the kernel picks this process when memory ends; where it may not, leave it."""
    try:
        _write("/proc/self/oom_score_adj", str(value))
    except OSError:
        pass


class Overdue(TimeoutError):
    """A block has not ended by its deadline."""


@contextmanager
def deadline(seconds: float, grace: float = 0.0) -> Iterator[None]:
    """Raise Overdue in the block after so long; for a process with one thread.

    A block that goes on all the same ends with the whole process ``grace`` seconds later, unless
    that is 0.
    """

    def over(signum: int, frame: FrameType | None) -> None:
        if grace:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, grace)
        raise Overdue(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
