"""btrfs's ioctls on subvolumes (linux/btrfs.h), in the kernel's words."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lading.linux import syscalls

BTRFS_SUPER_MAGIC = 0x9123683E
#: Every subvolume's root directory has this inode number.
FIRST_FREE_OBJECTID = 256

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_QUOTA_CTL = 0xC0109428
_QGROUP_LIMIT = 0x8030942B
_QUOTA_RESCAN_WAIT = 0x942E
_QGROUP_CREATE = 0x4010942A
GET_SUBVOL_INFO = 0x81F8943C

_SUBVOL_RDONLY = 1 << 1
_QUOTA_CTL_ENABLE = 1
_QGROUP_LIMIT_MAX_EXCL = 1 << 1

_VOL_ARGS = struct.Struct("=q4088s")
_VOL_ARGS_V2 = struct.Struct("=qQQ32x4040s")
_QGROUP_LIMIT_ARGS = struct.Struct("=QQQQQQ")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ioctl(descriptor: int, request: int, argument: bytes, what: str, path: Path) -> bytes:
    # Python copies immutable arguments into 1024 bytes, and these have 4096.
    buffer = bytearray(argument)
    try:
        fcntl.ioctl(descriptor, request, buffer)
    except OSError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}", str(path)) from error
    return bytes(buffer)


def on_btrfs(path: Path) -> bool:
    """Whether a directory lies on btrfs."""
    return syscalls.filesystem_type(path) == BTRFS_SUPER_MAGIC


def create(path: Path) -> None:
    """Make an empty subvolume."""
    with _opened(path.parent) as parent:
        arguments = _VOL_ARGS.pack(0, os.fsencode(path.name))
        _ioctl(parent, _SUBVOL_CREATE, arguments, "create subvolume", path)


def snapshot(source: Path, path: Path) -> None:
    """Make a writable snapshot of a subvolume."""
    with _opened(source) as origin, _opened(path.parent) as parent:
        arguments = _VOL_ARGS_V2.pack(origin, 0, 0, os.fsencode(path.name))
        _ioctl(parent, _SNAP_CREATE_V2, arguments, "snapshot subvolume", path)


def set_read_only(path: Path, *, read_only: bool) -> None:
    """Set or clear a subvolume's read-only flag."""
    with _opened(path) as descriptor:
        flags = int.from_bytes(
            _ioctl(descriptor, _SUBVOL_GETFLAGS, bytes(8), "get subvolume flags", path), "little"
        )
        wanted = flags | _SUBVOL_RDONLY if read_only else flags & ~_SUBVOL_RDONLY
        if wanted != flags:
            argument = wanted.to_bytes(8, "little")
            _ioctl(descriptor, _SUBVOL_SETFLAGS, argument, "set subvolume flags", path)


def destroy(path: Path) -> None:
    """Remove a subvolume and those inside it, which containers may have made."""
    set_read_only(path, read_only=False)
    for inside in _nested(path):
        destroy(inside)
    with _opened(path) as descriptor:
        info = _ioctl(descriptor, GET_SUBVOL_INFO, bytes(504), "subvolume info", path)
    with _opened(path.parent) as parent:
        arguments = _VOL_ARGS.pack(0, os.fsencode(path.name))
        _ioctl(parent, _SNAP_DESTROY, arguments, "destroy subvolume", path)
        # Its quota group, which stays for ever on older kernels; newer ones see to it themselves,
        # and refuse until then.
        with suppress(OSError):
            fcntl.ioctl(parent, _QGROUP_CREATE, struct.pack("=Q8s", 0, info[:8]))


def is_subvolume(path: Path) -> bool:
    """Whether a path on btrfs is a subvolume's root."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_ino == FIRST_FREE_OBJECTID


def _nested(top: Path) -> list[Path]:
    """The outermost subvolumes below one."""
    found: list[Path] = []
    stack = [top]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    path = Path(entry.path)
                    (found if is_subvolume(path) else stack).append(path)
    return found


def limit(path: Path, size: int) -> None:
    """Limit the bytes that a subvolume has for itself, switching quotas on where they are off.

    Not those that it refers to: most of these are its parent's.
    """
    arguments = _QGROUP_LIMIT_ARGS.pack(0, _QGROUP_LIMIT_MAX_EXCL, 0, size, 0, 0)
    with _opened(path) as descriptor:
        try:
            fcntl.ioctl(descriptor, _QGROUP_LIMIT, arguments)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ENOENT, errno.EINVAL):
                raise
            enable = struct.pack("=QQ", _QUOTA_CTL_ENABLE, 0)
            _ioctl(descriptor, _QUOTA_CTL, enable, "enable quotas", path)
            fcntl.ioctl(descriptor, _QUOTA_RESCAN_WAIT)
            _ioctl(descriptor, _QGROUP_LIMIT, arguments, "limit subvolume", path)
