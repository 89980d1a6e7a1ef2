"""System calls that Python lacks: one thin function each, errors as ``OSError``.

Each wrapper encodes, calls and raises; nothing clever lives here. Calls without a wrapper in glibc
2.36 go through syscall(2) by number; the numbers from 424 on are the same on all architectures
(include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Sequence

PathLike = str | bytes | os.PathLike[str]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_ATIME_MASK = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_KEYCTL_JOIN_SESSION_KEYRING = 1

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 435, 436, 437, 442

#: (pivot_root, capget, capset, bpf, keyctl), which differ between architectures.
_NUMBERS = {
    "x86_64": (155, 125, 126, 321, 250),
    "aarch64": (41, 90, 91, 280, 219),
    "riscv64": (41, 90, 91, 280, 219),
    "s390x": (217, 184, 185, 351, 280),
    "ppc64le": (203, 183, 184, 361, 271),
}
SYS_PIVOT_ROOT, SYS_CAPGET, SYS_CAPSET, SYS_BPF, SYS_KEYCTL = _NUMBERS.get(
    platform.machine(), _NUMBERS["x86_64"]
)

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def check(result: int, what: str, path: PathLike | None = None) -> int:
    """Return ``result``, or raise the ``OSError`` of errno when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        text = f"{what}: {os.strerror(number)}"
        raise OSError(number, text, os.fsdecode(path) if path is not None else None)
    return result


def _optional(path: PathLike | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def mount(
    source: PathLike | None, target: PathLike, kind: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2)."""
    result = libc.mount(
        _optional(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    check(result, f"mount {kind or os.fsdecode(source or b'')}".strip(), target)


def umount2(target: PathLike, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(os.fsencode(target), flags), "umount", target)


def syncfs(descriptor: int) -> None:
    """syncfs(2)."""
    check(libc.syncfs(descriptor), "syncfs")


def pivot_root(new_root: PathLike, put_old: PathLike) -> None:
    """pivot_root(2)."""
    result = libc.syscall(SYS_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old))
    check(result, "pivot_root", new_root)


def unshare(flags: int) -> None:
    """unshare(2): only the calling thread moves."""
    check(libc.unshare(flags), "unshare")


def setns(descriptor: int, kinds: int = 0) -> None:
    """setns(2): a namespace descriptor, or a pidfd with the ``CLONE_NEW*`` flags to join."""
    check(libc.setns(descriptor, kinds), "setns")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return check(libc.prctl(option, *padded), "prctl")


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    check(libc.sethostname(name, len(name)), "sethostname")


def setdomainname(name: bytes) -> None:
    """setdomainname(2)."""
    check(libc.setdomainname(name, len(name)), "setdomainname")


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2), kernel 5.9; one by one where the kernel lacks it."""
    if libc.syscall(_CLOSE_RANGE, first, last, flags) < 0:
        os.closerange(first, min(last, os.sysconf("SC_OPEN_MAX")))


def openat2(directory: int, path: PathLike, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), kernel 5.6; the descriptor is close-on-exec."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    result = libc.syscall(_OPENAT2, directory, os.fsencode(path), how, len(how))
    return check(result, "openat2", path)


def open_tree(directory: int, path: PathLike, flags: int) -> int:
    """open_tree(2), kernel 5.2."""
    result = libc.syscall(_OPEN_TREE, directory, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    return check(result, "open_tree", path)


def move_mount(
    from_directory: int, from_path: PathLike, to_directory: int, to_path: PathLike, flags: int
) -> None:
    """move_mount(2), kernel 5.2."""
    result = libc.syscall(
        _MOVE_MOUNT,
        from_directory,
        os.fsencode(from_path),
        to_directory,
        os.fsencode(to_path),
        flags,
    )
    check(result, "move_mount", to_path)


def fsopen(kind: str) -> int:
    """fsopen(2), kernel 5.2."""
    return check(libc.syscall(_FSOPEN, kind.encode(), FSOPEN_CLOEXEC), f"fsopen {kind}")


def fsconfig(descriptor: int, command: int, key: str | None, value: str | None) -> None:
    """fsconfig(2), kernel 5.2; a failure carries what the filesystem logged."""
    result = libc.syscall(
        _FSCONFIG,
        descriptor,
        command,
        key.encode() if key is not None else None,
        os.fsencode(value) if value is not None else None,
        0,
    )
    if result < 0:
        number = ctypes.get_errno()
        why = _filesystem_log(descriptor) or os.strerror(number)
        raise OSError(number, f"fsconfig {key or 'create'}: {why}")


def _filesystem_log(descriptor: int) -> str:
    lines = []
    while True:
        try:
            lines.append(os.read(descriptor, 4096).decode(errors="replace").strip())
        except OSError:
            return "; ".join(line[2:] for line in lines if line.startswith("e "))


def fsmount(descriptor: int, attributes: int) -> int:
    """fsmount(2), kernel 5.2: a descriptor of the detached mount."""
    return check(libc.syscall(_FSMOUNT, descriptor, FSMOUNT_CLOEXEC, attributes), "fsmount")


def mount_setattr(
    directory: int,
    path: PathLike,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns: int = 0,
) -> None:
    """mount_setattr(2), kernel 5.12."""
    attributes = struct.pack("QQQQ", attr_set, attr_clr, propagation, userns)
    result = libc.syscall(
        _MOUNT_SETATTR, directory, os.fsencode(path), flags, attributes, len(attributes)
    )
    check(result, "mount_setattr", path)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2), version 3: sets as bit masks, for the calling thread."""
    header = struct.pack("II", 0x20080522, 0)
    sets = (effective, permitted, inheritable)
    data = struct.pack("6I", *(s & 0xFFFFFFFF for s in sets), *(s >> 32 for s in sets))
    check(libc.syscall(SYS_CAPSET, header, data), "capset")


def setgroups_setresids(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Become a user: setgroups(2), setresgid(2), setresuid(2), in the only order that works."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def join_session_keyring(name: str) -> None:
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: keyrings are not in any namespace."""
    result = libc.syscall(SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, name.encode())
    check(result, "join session keyring")


def filesystem_type(place: int | str | os.PathLike[str]) -> int:
    """statfs(2): the magic number of the filesystem, which Python's ``statvfs`` leaves out."""
    buffer = ctypes.create_string_buffer(256)
    if isinstance(place, int):
        check(libc.fstatfs(place, buffer), "fstatfs")
    else:
        check(libc.statfs(os.fsencode(place), buffer), f'statfs "{place}"')
    return ctypes.c_long.from_buffer(buffer).value


#: Called with the interpreter's lock held: who forks must not let another thread run meanwhile.
_holding = ctypes.PyDLL(None, use_errno=True)


def fork() -> int:
    """fork(3) as C has it: 0 in the child, the pid in the parent.

    Python's own handlers (of ``threading``, ``logging``, ``random``) do not run, so only a
    single-threaded process may call it. They write to so many objects that every child would have
    600 kB more of memory that is its own.
    """
    return check(_holding.fork(), "fork")


CLONE_PARENT = 0x00008000
_CLONE_INTO_CGROUP = 0x200000000
_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "s390x": 120, "ppc64le": 120}
SYS_CLONE = _CLONE.get(platform.machine(), 56)


def clone(flags: int) -> int:
    """clone(2) used as fork(2): 0 in the child, the pid in the parent; SIGCHLD when it ends.

    glibc's and Python's fork handlers do not run, so only a single-threaded process may call it.
    """
    arguments = [flags | signal.SIGCHLD, 0, 0, 0, 0]
    if platform.machine() == "s390x":
        arguments[0], arguments[1] = arguments[1], arguments[0]
    return check(libc.syscall(SYS_CLONE, *map(ctypes.c_ulong, arguments)), "clone")


def clone_into_cgroup(flags: int, cgroup: int) -> int:
    """clone3(2), kernel 5.7: as :func:`clone`, the child in the version 2 group ``cgroup``.

    A process that moves there by itself waits for an RCU grace period; one made there does not.
    """
    # A sibling's signal is its parent's by definition, and may not be given.
    exit_signal = 0 if flags & CLONE_PARENT else int(signal.SIGCHLD)
    flags |= _CLONE_INTO_CGROUP
    arguments = struct.pack("11Q", flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup)
    return check(libc.syscall(_CLONE3, arguments, len(arguments)), "clone3")
