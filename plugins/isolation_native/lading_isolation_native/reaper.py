"""Process 1 of a container that asked for an init: forwards signals and reaps orphans.

It is the forked monitor with everything let go, already with the user, capabilities and seccomp
filter of the container, and runs the user's program as its child.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import NoReturn

from lading.linux import syscalls

#: Signals that are about this process itself, not for its child.
_OWN = {
    signal.SIGCHLD, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT,
    signal.SIGTRAP, signal.SIGSYS, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip


def fork_program() -> int:
    """Fork: 0 in the child, which goes on to execute the program; the reaper gets its pid.

    Signals are blocked before, so that none is lost between the fork and the first wait.
    """
    blocked = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setpgid(0, 0)
        try:
            # The program, not this process, is in the terminal's foreground.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
        except OSError:
            pass
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    return pid


def serve(child: int) -> NoReturn:
    """Wait for signals until the child has ended; end with its status."""
    gc.freeze()
    syscalls.close_range(0)
    every = signal.valid_signals()
    while True:
        number = signal.sigwaitinfo(every).si_signo
        if number == signal.SIGCHLD:
            _reap(child)
        elif number not in _OWN:
            try:
                os.kill(child, number)
            except ProcessLookupError:
                pass


def _reap(child: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
