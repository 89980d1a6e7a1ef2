"""Project quotas on the directory of a snapshot (XFS mounted with ``prjquota``).

Not ext4: there CAP_SYS_RESOURCE lifts limits, and overlayfs writes with the rights of whoever
mounted it.

A project is a number that files have and their directories hand on; a limit holds for all of a
project's files together. Stands on FS_IOC_FSSETXATTR (linux/fs.h, Linux 4.5) and quotactl_fd(2)
(5.14), with linux/dqblk_xfs.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

from lading.errors import Unsupported
from lading.linux import syscalls

#: Projects below are left to the administrator.
_FIRST_PROJECT = 0x8000_0000

_XFS_SUPER_MAGIC = 0x58465342

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=IIIII8x")

_SYS_QUOTACTL_FD = 443
_PRJQUOTA = 2
_Q_XGETQUOTA, _Q_XSETQLIM = 0x5803, 0x5804
_FS_DQUOT_VERSION, _FS_PROJ_QUOTA = 1, 2
_FS_DQ_BLOCKS, _FS_DQ_INODES = 1 << 2 | 1 << 3, 1 << 0 | 1 << 1
#: version, flags, fieldmask, id; hard and soft limits of blocks (512 bytes) and of inodes.
_FS_DISK_QUOTA = struct.Struct("=bbHIQQQQ72x")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def available(directory: Path) -> bool:
    """Whether limits on projects are enforced on a directory's filesystem."""
    if syscalls.filesystem_type(directory) != _XFS_SUPER_MAGIC:
        return False
    try:
        _quotactl(directory, _Q_XGETQUOTA, 0, ctypes.create_string_buffer(_FS_DISK_QUOTA.size))
    except OSError as error:
        # No limit has been set on this project so far.
        return error.errno == errno.ENOENT
    return True


def project_of(directory: Path) -> int:
    """The project that a directory gives its number, which no other on its filesystem has.

    Several engines may share one. XFS's numbers go beyond 31 bits on filesystems of terabytes only.
    """
    return _FIRST_PROJECT | directory.stat().st_ino & (_FIRST_PROJECT - 1)


def limit(directory: Path, project: int, size: int, inodes: int) -> None:
    """Limit a project on a directory's filesystem: bytes and inodes, 0 for no limit.

    Raises Unsupported where project quotas are off.
    """
    if not available(directory):
        raise Unsupported(
            f"the filesystem of {directory} has no project quotas that hold",
            hint="put data-root on XFS mounted with prjquota, or use a backend such as btrfs",
        )
    blocks = -(-size // 512)
    fields = _FS_DQ_BLOCKS | _FS_DQ_INODES
    quota = _FS_DISK_QUOTA.pack(
        _FS_DQUOT_VERSION, _FS_PROJ_QUOTA, fields, project, blocks, blocks, inodes, inodes
    )
    _quotactl(directory, _Q_XSETQLIM, project, ctypes.create_string_buffer(quota, len(quota)))


def join(directory: Path, project: int) -> None:
    """Give a directory, and what is made in it, to a project."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags, extent, extents, _, cow = _FSXATTR.unpack(
            fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))
        )
        changed = _FSXATTR.pack(flags | _FS_XFLAG_PROJINHERIT, extent, extents, project, cow)
        fcntl.ioctl(descriptor, _FS_IOC_FSSETXATTR, changed)
    finally:
        os.close(descriptor)


def _quotactl(
    directory: Path, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]
) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        request = command << 8 | _PRJQUOTA
        if _libc.syscall(_SYS_QUOTACTL_FD, descriptor, request, project, buffer) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"quotactl: {os.strerror(number)}", str(directory))
    finally:
        os.close(descriptor)
