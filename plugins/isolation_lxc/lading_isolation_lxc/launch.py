"""Starting LXC's programs: streams, terminal, what their logs say."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Sequence
from pathlib import Path

from lading.errors import StartFailed
from lading.hooks.isolation import Stdio

#: Seconds after which a call counts as hung.
DEADLINE = 60.0
_FAILED_EXEC = re.compile(r"ERROR .*?- ([^\n-]+?) - Failed to exec")
_LAST_ERROR = re.compile(r"ERROR .*?:\d+ - (.+)")
_REASONS = {os.strerror(number): number for number in errno.errorcode}


def spawn(
    command: Sequence[str], stdio: Stdio, before: Callable[[], None] | None = None
) -> tuple[int, int]:
    """Fork and execute; returns pid and the terminal's master or -1.

    LXC forwards between this terminal and the one that it makes of the container's devpts.
    """
    master, slave = os.openpty() if stdio.terminal else (-1, -1)
    if stdio.terminal:
        tty.setraw(slave)
    streams = (slave,) * 3 if stdio.terminal else (stdio.stdin, stdio.stdout, stdio.stderr)
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            _take(streams)
            if stdio.terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if before is not None:
                before()
            os.execv(command[0], list(command))
        finally:
            os._exit(255)
    if slave >= 0:
        os.close(slave)
    return pid, master


def _take(streams: Sequence[int]) -> None:
    """Make these 0, 1 and 2; above them first, since a stream may itself be one of the three."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    high = [fcntl.fcntl(s if s >= 0 else null, fcntl.F_DUPFD_CLOEXEC, 10) for s in streams]
    for target, source in enumerate(high):
        os.dup2(source, target)


def ended(pid: int, timeout: float = 0) -> bool:
    """Whether a process has ended, perhaps not waited for yet."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)


def await_execution(process: Callable[[], int], keeper: int, program: str, log: Path) -> int:
    """Wait until a process below ``keeper`` has executed its program, and return its pid.

    LXC does not tell: until then the process runs LXC's own ``program``.
    Raises StartFailed when the keeper ends with an error in its log.
    """
    own = _identity(program)
    pause, give_up = 0.001, time.monotonic() + DEADLINE
    while time.monotonic() < give_up:
        pid = process()
        found = _identity(f"/proc/{pid}/exe") if pid else None
        if found is not None and found != own:
            return pid
        if ended(keeper, pause):
            raise_failure(log, only_exec=True)
            return pid or keeper
        pause = min(pause * 1.5, 0.05)
    raise StartFailed(f"process {keeper} did not execute its program in time", errno=0)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def child_of(pid: int) -> int:
    """The last child of a process, or 0."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[-1]) if children else 0


def raise_failure(log: Path, *, only_exec: bool) -> None:
    """Raise what a log tells."""
    text = log.read_text(errors="replace") if log.exists() else ""
    if found := _FAILED_EXEC.search(text):
        reason = found[1].strip()
        raise StartFailed(f"exec: {reason}", errno=_REASONS.get(reason, 0))
    if only_exec:
        return
    errors = _LAST_ERROR.findall(text)
    raise StartFailed(f"lxc: {errors[0] if errors else 'failed without a message'}", errno=0)
