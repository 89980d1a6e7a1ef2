"""Namespaces of the calling thread: leave, join, make, pin (namespaces(7))."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lading.errors import Invalid
from lading.linux import mounts, syscalls

_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h

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


@cache
def known() -> frozenset[str]:
    """Those of :data:`KINDS` that this kernel has."""
    return frozenset(k for k, (_, name) in KINDS.items() if os.path.exists(f"/proc/self/ns/{name}"))


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


def check_kind(path: str | Path, kind: str) -> None:
    """Make sure that a path is a namespace of that kind. Raises Invalid (ioctl_nsfs(2))."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise Invalid(f'{kind} namespace "{path}": {reason}') from error
    try:
        found = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:
        found = 0
    finally:
        os.close(descriptor)
    if found != KINDS[kind][0]:
        raise Invalid(f'"{path}" is not a {kind} namespace')


def pin(pid: int, kind: str, path: Path) -> None:
    """Keep a namespace of a process alive by a bind mount on the file ``path``, made if missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o444)
    syscalls.mount(f"/proc/{pid}/ns/{KINDS[kind][1]}", path, None, mounts.MS_BIND)


#: Rows of uid_map and gid_map (user_namespaces(7)): id inside, id outside, how many.
IdMap = Iterable[tuple[int, int, int]]


def new_user_namespace(uid_map: IdMap, gid_map: IdMap) -> int:
    """Make a user namespace and return its descriptor; only single-threaded callers.

    The process that it is made by waits, is mapped, and is killed again: the descriptor keeps the
    namespace. Raises OSError when the kernel refuses a map.
    """
    ours, theirs = os.pipe()
    pid = syscalls.clone(syscalls.CLONE_NEWUSER)
    if pid == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    try:
        for name, rows in (("uid_map", uid_map), ("gid_map", gid_map)):
            table = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in rows)
            _write_map(f"/proc/{pid}/{name}", table)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ours)
        os.close(theirs)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _write_map(path: str, table: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # The kernel takes a map in one write only.
        os.write(descriptor, table.encode())
    except OSError as error:
        raise OSError(error.errno, f"id map {table!r}: {error.strerror}", path) from error
    finally:
        os.close(descriptor)
