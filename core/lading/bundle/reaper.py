"""Process 1 of a container that asked for an init: forwards signals and reaps orphans.

It is the forked monitor with everything let go, already with the user, capabilities and seccomp
filter of the container, and runs the user's program as its child.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from pathlib import Path
from typing import NoReturn

from lading.linux import syscalls

#: Signals that are about this process itself, not for its child.
_OWN = {
    signal.SIGCHLD, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT,
    signal.SIGTRAP, signal.SIGSYS, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip

_NAME = b"lading-init"
Range = tuple[int, int]


def own_texts() -> tuple[Range, Range]:
    """Where this process keeps its arguments and environment: proc_pid_stat(5), fields 48 to 51."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
    arguments_start, arguments_end, environment_start, environment_end = map(int, fields[45:49])
    return (arguments_start, arguments_end), (environment_start, environment_end)


def hide_texts(arguments: Range, environment: Range) -> None:
    """Show a name of its own in ``ps``; the engine's command line and environment are nobody's."""
    for start, end in (arguments, environment):
        if start:
            ctypes.memset(start, 0, end - start)
    start, end = arguments
    ctypes.memmove(start, _NAME, min(len(_NAME), max(end - start - 1, 0)))
    name = ctypes.create_string_buffer(_NAME)
    syscalls.prctl(syscalls.PR_SET_NAME, ctypes.addressof(name))


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
