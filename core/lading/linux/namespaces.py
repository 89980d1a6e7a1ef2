"""Namespaces of the calling thread: leave, join, pin (namespaces(7))."""

from __future__ import annotations

import os
from pathlib import Path

from lading.linux import mounts, syscalls

#: OCI runtime-spec names, the kernel's flags, and the names under /proc/<pid>/ns.
KINDS = {
    "user": (syscalls.CLONE_NEWUSER, "user"),
    "cgroup": (syscalls.CLONE_NEWCGROUP, "cgroup"),
    "ipc": (syscalls.CLONE_NEWIPC, "ipc"),
    "uts": (syscalls.CLONE_NEWUTS, "uts"),
    "network": (syscalls.CLONE_NEWNET, "net"),
    "pid": (syscalls.CLONE_NEWPID, "pid"),
    "time": (syscalls.CLONE_NEWTIME, "time"),
    "mount": (syscalls.CLONE_NEWNS, "mnt"),
}


def unshare_mounts() -> None:
    """Enter a new mount namespace from which nothing propagates back."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    mounts.make_slave()


def join(path: str | Path, kind: str) -> None:
    """Join the namespace at ``path``; ``kind`` is the OCI name. Raises OSError naming the path."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(descriptor, KINDS[kind][0])
    except OSError as error:
        raise OSError(error.errno, f"join {kind} namespace: {error.strerror}", str(path)) from error
    finally:
        os.close(descriptor)


def pin(pid: int, kind: str, path: Path) -> None:
    """Keep a namespace of a process alive by a bind mount on the file ``path``, made if missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o444)
    syscalls.mount(f"/proc/{pid}/ns/{KINDS[kind][1]}", path, None, mounts.MS_BIND)
