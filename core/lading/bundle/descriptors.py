"""What a forked process keeps of its parent's: standard streams and a few descriptors."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import stat
from collections.abc import Iterable

from lading.hooks.isolation import Stdio
from lading.linux import syscalls


def leave_parent(keyring: str) -> None:
    """Drop what Python and the monitor have set up: signals, session, keyring.

    Until it is executed the process cannot be traced, nor looked into through /proc, by others of
    its pid namespace.
    """
    # A finaliser could close a descriptor whose number means something else by now.
    gc.disable()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    signal.set_wakeup_fd(-1)
    # What is ignored stays so through execve, whoever among our parents began it. (Not by the
    # signal module: making its enumerations takes longer than the calls.)
    for number in range(1, signal.NSIG):
        syscalls.libc.signal(number, None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    lead_session()
    try:
        syscalls.join_session_keyring(f"_ses.{keyring}")
    except OSError as error:
        # A kernel without keys, or a seccomp filter around us that denies them to all below.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise


def lead_session() -> None:
    """Begin a session, unless this process leads one already (which setsid(2) refuses)."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def take_streams(stdio: Stdio) -> None:
    """Make the caller's descriptors 0, 1 and 2; the null device where there is none."""
    # Copied up first: one of them may be where another has to go.
    high = [_above(s) if s >= 0 else -1 for s in (stdio.stdin, stdio.stdout, stdio.stderr)]
    for target, source in enumerate(high):
        if source < 0:
            source = _above(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        os.dup2(source, target)


def _above(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def keep_only(wanted: Iterable[int]) -> None:
    """Close all descriptors but 0, 1, 2 and these."""
    low = 3
    for descriptor in sorted({d for d in wanted if d >= low}):
        if descriptor > low:
            syscalls.close_range(low, descriptor - 1)
        low = descriptor + 1
    syscalls.close_range(low)


def give(stdio: Stdio, uid: int) -> None:
    """Make pipes the property of a user, who may then open ``/dev/stdout`` once more."""
    if stdio.terminal or uid < 0:
        return
    for descriptor in (stdio.stdin, stdio.stdout, stdio.stderr):
        if descriptor >= 0:
            status = os.fstat(descriptor)
            if stat.S_ISFIFO(status.st_mode) and status.st_uid != uid:
                os.fchown(descriptor, uid, -1)
