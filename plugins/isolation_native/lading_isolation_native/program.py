"""The last steps before ``execve``: who the process is, what it may, and which file it becomes.

Runs in the container's process, after which nothing of Lading is left in it. The order matters:
each step gives away something that an earlier one needed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import termios
from collections.abc import Mapping

from lading.errors import StartFailed
from lading.hooks.isolation import Stdio
from lading.linux import capabilities, syscalls
from lading_isolation_native import seccomp
from lading_isolation_native.config import Process

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CLOSE_RANGE_CLOEXEC = 4


def take_streams(stdio: Stdio, slave: int) -> None:
    """Make the (then controlling) terminal, or the given descriptors, 0, 1 and 2."""
    if slave >= 0:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for target in range(3):
            os.dup2(slave, target)
        return
    sources = (stdio.stdin, stdio.stdout, stdio.stderr)
    # Copied up first: one of them may be where another has to go.
    high = [fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, 10) if s >= 0 else -1 for s in sources]
    for target, source in enumerate(high):
        if source >= 0:
            os.dup2(source, target)
        else:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, target)


def forget_parent() -> None:
    """Drop what Python and the monitor have set up for signals, and start a session."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()


def limit(process: Process) -> None:
    """Resource limits and the OOM score."""
    for row in process.rlimits:
        name, soft, hard = row["type"], row["soft"], row["hard"]
        number = getattr(resource, name, None)
        if number is None:
            raise OSError(errno.EINVAL, f'unknown resource limit "{name}"')
        infinite = 0xFFFFFFFFFFFFFFFF
        values = tuple(
            resource.RLIM_INFINITY if v >= infinite or v < 0 else v for v in (soft, hard)
        )
        try:
            resource.setrlimit(number, (values[0], values[1]))
        except ValueError as error:
            raise OSError(
                errno.EPERM,
                f"{name} {soft}:{hard}: the hard limit here is "
                f"{resource.getrlimit(number)[1]}, and the engine may not raise it",
            ) from error
    if process.oom_score_adj is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(process.oom_score_adj))


def become(process: Process, program: bytes | None, highest_capability: int) -> None:
    """Change user, capabilities and seccomp filter to what the config says."""
    if process.apparmor:
        _write_attribute("apparmor/exec", f"exec {process.apparmor}")
    if process.selinux:
        _write_attribute("exec", process.selinux)
    if program is not None and not process.no_new_privileges:
        # Installing a filter takes CAP_SYS_ADMIN, which is gone in a moment.
        seccomp.install(program)
    _change_identity(process, highest_capability)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if program is not None:
            seccomp.install(program)
    if process.umask is not None:
        os.umask(process.umask)
    else:
        os.umask(0o022)


def _write_attribute(name: str, text: str) -> None:
    with open(f"/proc/thread-self/attr/{name}", "w") as file:
        file.write(text)


def _change_identity(process: Process, highest: int) -> None:
    held = capabilities.held()
    sets = {
        kind: capabilities.mask(process.capabilities.get(kind) or ()) & held
        for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    capabilities.drop_bounding(sets["bounding"], highest)
    syscalls.setgroups_setresids(process.uid, process.gid, process.groups)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    syscalls.capset(sets["effective"], sets["permitted"], sets["inheritable"])
    if sets["ambient"]:
        capabilities.raise_ambient(sets["ambient"] & sets["permitted"] & sets["inheritable"])


def enter_directory(cwd: str) -> None:
    """chdir, and make sure that it is a place inside this root."""
    try:
        os.chdir(cwd)
        inside = os.getcwd().startswith("/")
    except OSError as error:
        raise StartFailed(
            f'chdir to cwd ("{cwd}") set in config.json failed: {_text(error)}',
            errno=error.errno or 0,
        ) from error
    if not inside:
        # A directory of the host's, reached through a leaked descriptor (CVE-2024-21626).
        raise StartFailed(f'cwd "{cwd}" is outside of the container\'s root', errno=errno.EACCES)


def make_directory(cwd: str) -> None:
    """Make the working directory when the image does not have it, as Docker does."""
    try:
        os.makedirs(cwd, 0o755, exist_ok=True)
    except OSError:
        # A file in the way, or a read-only root: entering it says what is wrong.
        pass


def execute(process: Process, *, keep: int = -1) -> None:
    """Become the program; returns only by raising StartFailed.

    All descriptors from 3 on are closed by the execution, so that nothing of the engine's is
    inherited. ``keep`` is close-on-exec already and stays usable until then.
    """
    syscalls.close_range(3, flags=_CLOSE_RANGE_CLOEXEC)
    environment = dict(row.partition("=")[::2] for row in process.env)
    name = process.args[0]
    if "/" in name:
        _try(name, process, environment, f'exec: "{name}": stat {name}: ')
    denied: OSError | None = None
    for directory in environment.get("PATH", _DEFAULT_PATH).split(":"):
        path = f"{directory or '.'}/{name}"
        try:
            os.execve(path, list(process.args), environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
        except OSError as error:
            raise StartFailed(f'exec: "{name}": {_text(error)}', errno=error.errno or 0) from error
    if denied is not None:
        raise StartFailed(f'exec: "{name}": permission denied', errno=errno.EACCES) from denied
    raise StartFailed(f'exec: "{name}": executable file not found in $PATH', errno=errno.ENOENT)


def _try(path: str, process: Process, environment: Mapping[str, str], missing: str) -> None:
    try:
        os.execve(path, list(process.args), dict(environment))
    except FileNotFoundError as error:
        if os.path.exists(path):
            # The file is there: what is missing is its interpreter or loader.
            missing = f"exec {path}: "
        raise StartFailed(f"{missing}no such file or directory", errno=errno.ENOENT) from error
    except OSError as error:
        number = errno.EACCES if os.path.isdir(path) else error.errno or 0
        text = "is a directory" if os.path.isdir(path) else _text(error)
        denied = (
            ": permission denied" if number == errno.EACCES and text == "is a directory" else ""
        )
        raise StartFailed(f'exec: "{path}": {text}{denied}', errno=number) from error


def _text(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
