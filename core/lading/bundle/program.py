"""The last steps before ``execve``: who the process is, what it may, and which file it becomes.

Runs in the container's process, after which nothing of Lading is left in it. The order matters:
each step gives away something that an earlier one needed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import termios
from collections.abc import Mapping
from typing import NoReturn

from lading.bundle.config import Process
from lading.bundle.seccomp import Filter
from lading.errors import StartFailed
from lading.linux import capabilities, procfs, syscalls

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CLOSE_RANGE_CLOEXEC = 4


def take_terminal(slave: int, uid: int) -> None:
    """Make a terminal the controlling one, and 0, 1 and 2; it belongs to the user."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for target in range(3):
        os.dup2(slave, target)
    if os.fstat(slave).st_uid != uid:
        os.fchown(slave, uid, -1)


def label(process: Process, proc: int) -> None:
    """Have the next ``execve`` change the security label; ``proc`` is the host's procfs.

    Closes ``proc``: an image could name a program by way of the descriptor.
    """
    try:
        if process.apparmor:
            procfs.write(proc, "thread-self/attr/apparmor/exec", f"exec {process.apparmor}")
        if process.selinux:
            procfs.write(proc, "thread-self/attr/exec", process.selinux)
    finally:
        if proc >= 0:
            os.close(proc)


def become(process: Process, held: int, highest: int, program: Filter | None) -> None:
    """Change directory, user, capabilities and seccomp filter to what the config says.

    ``held`` are the capabilities to choose from, ``highest`` is the kernel's last one.
    """
    os.umask(0o022 if process.umask is None else process.umask)
    sets = {
        kind: capabilities.mask(process.capabilities.get(kind) or ()) & held
        for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    # A directory may be open to the one only or to the other only (runc tries both as well).
    entered = _try_directory(process.cwd)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    capabilities.drop_bounding(sets["bounding"], highest)
    syscalls.setgroups_setresids(process.uid, process.gid, process.groups)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    if not entered:
        enter_directory(process.cwd)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if program is not None:
        # As late as can be, since it is for the program: these two calls it must let through.
        if process.uid and not process.no_new_privileges:
            syscalls.capset(held, held, 0)
        program.install()
    permitted = sets["permitted"]
    inheritable = sets["inheritable"] & sets["bounding"]
    syscalls.capset(sets["effective"] & permitted, permitted, inheritable)
    if sets["ambient"]:
        capabilities.raise_ambient(sets["ambient"] & permitted & inheritable)


def _try_directory(cwd: str) -> bool:
    try:
        enter_directory(cwd)
    except StartFailed as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return False
        raise
    return True


def enter_directory(cwd: str) -> None:
    """chdir, and make sure that it is a place inside this root."""
    try:
        os.chdir(cwd)
    except OSError as error:
        raise StartFailed(
            f'chdir to cwd ("{cwd}") set in config.json failed: {_text(error)}',
            errno=error.errno or 0,
        ) from error
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        # A directory of the host's, reached through a leaked descriptor (CVE-2024-21626).
        raise StartFailed(f'cwd "{cwd}" is outside of the container\'s root', errno=errno.ENOENT)


def execute(process: Process) -> NoReturn:
    """Become the program; ends only by raising StartFailed.

    All descriptors from 3 on are closed by the execution, so that nothing of the engine's is
    inherited.
    """
    syscalls.close_range(3, flags=_CLOSE_RANGE_CLOEXEC)
    environment = {k: v for k, _, v in (row.partition("=") for row in process.env) if k}
    name = process.args[0]
    if "/" in name:
        _execute_path(name, process, environment)
    denied: OSError | None = None
    for directory in environment.get("PATH", _DEFAULT_PATH).split(":"):
        try:
            os.execve(f"{directory or '.'}/{name}", list(process.args), environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
        except OSError as error:
            raise StartFailed(f'exec: "{name}": {_text(error)}', errno=error.errno or 0) from error
    if denied is not None:
        raise StartFailed(f'exec: "{name}": permission denied', errno=errno.EACCES) from denied
    raise StartFailed(f'exec: "{name}": executable file not found in $PATH', errno=errno.ENOENT)


def _execute_path(path: str, process: Process, environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execve(path, list(process.args), dict(environment))
    except FileNotFoundError as error:
        # When the file is there, what is missing is its interpreter or loader.
        what = f"exec {path}" if os.path.exists(path) else f'exec: "{path}": stat {path}'
        raise StartFailed(f"{what}: no such file or directory", errno=errno.ENOENT) from error
    except OSError as error:
        if os.path.isdir(path):
            text = f'exec: "{path}": is a directory: permission denied'
            raise StartFailed(text, errno=errno.EACCES) from error
        raise StartFailed(f'exec: "{path}": {_text(error)}', errno=error.errno or 0) from error


def _text(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
