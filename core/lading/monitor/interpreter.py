"""Start a module in an interpreter that nobody can write to.

Monitors outlive their containers' attempts to reach them through ``/proc/<pid>/exe``: that file is
a sealed copy of the interpreter in memory (memfd_create(2), F_ADD_SEALS), not the host's binary.
``argv[0]`` stays the interpreter's path, by which Python finds its prefix and virtual environment.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

log = logging.getLogger(__name__)

_MFD_EXEC = 0x10  # linux 6.3; older kernels refuse it, and need no such flag
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def start(module: str, control: int) -> subprocess.Popen[bytes]:
    """Run ``module.main(control)`` in its own session, with ``/dev/null`` as input and output.

    The environment is next to empty: what the daemon's holds is nobody's business there. Falls
    back to the interpreter's own file, with a warning, where a sealed copy cannot be executed.
    """
    argv = [sys.executable, "-P", "-c", f"from {module} import main; main({control})"]
    try:
        copy = _sealed_copy()
    except OSError as error:
        log.warning("no sealed copy of the interpreter (%s): containers could reach it", error)
        return _popen(argv, sys.executable, (control,))
    try:
        return _popen(argv, f"/proc/self/fd/{copy}", (control, copy))
    except OSError as error:
        log.warning("cannot execute a sealed copy of the interpreter: %s", error)
        return _popen(argv, sys.executable, (control,))
    finally:
        os.close(copy)


def _popen(argv: list[str], executable: str, fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        executable=executable,
        pass_fds=fds,
        env=_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _sealed_copy() -> int:
    try:
        copy = os.memfd_create("lading", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:
        copy = os.memfd_create("lading", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(sys.executable, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            while size > 0:
                size -= os.sendfile(copy, source.fileno(), None, size)
        os.fchmod(copy, 0o500)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(copy)
        raise
    return copy


def _environment() -> dict[str, str]:
    kept = ("PATH", "TZ", "LANG", "LC_ALL", "LC_CTYPE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)
    # The heap should stay as small as what was asked for: it is shared by all monitors.
    environment["MALLOC_ARENA_MAX"] = "1"
    environment["MALLOC_TOP_PAD_"] = "0"
    if library := _shared_library_directory():
        environment["LD_LIBRARY_PATH"] = library
    return environment


def _shared_library_directory() -> str:
    """Where libpython is mapped from: an ``$ORIGIN`` in the binary means nothing in a memfd."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if path.rpartition("/")[2].startswith("libpython"):
                return "/" + path.rpartition("/")[0]
    return ""
