"""Faithful copies of trees: owners, modes, times, extended attributes, hard links, holes.

Works by directory descriptors, so that neither the length of a path nor a link in it matters.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

#: linux/fs.h: _IOW(0x94, 9, int).
FICLONE = 0x40049409

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: What a filesystem answers that cannot share blocks, or not between these files.
_NO_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV)


def reflinks(place: str) -> bool:
    """Whether files in a directory can share their blocks."""
    with open(f"{place}/a", "wb") as source, open(f"{place}/b", "wb") as copy:
        source.write(b"x")
        source.flush()
        with open(f"{place}/a", "rb") as readable:
            return _clone(readable.fileno(), copy.fileno())


def copy_tree(source: Path, target: Path) -> None:
    """Copy what is in one directory into another, and its own metadata. Raises OSError."""
    origin, goal = os.open(source, _DIRECTORY), os.open(target, _DIRECTORY)
    links = _Links(goal)
    try:
        _directory(origin, goal, b"", links)
    finally:
        os.close(origin)
        os.close(goal)


class _Links:
    """Where files with several names were copied to first, relative to the top."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.first: dict[tuple[int, int], bytes] = {}

    def made(self, status: os.stat_result, goal: int, name: bytes, path: bytes) -> bool:
        """Link the name to an earlier copy of the same file, if there is one."""
        if status.st_nlink == 1:
            return False
        first = self.first.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        above, _, last = first.rpartition(b"/")
        parent = _descend(self.top, above)
        try:
            os.link(last, name, src_dir_fd=parent, dst_dir_fd=goal, follow_symlinks=False)
        finally:
            os.close(parent)
        return True


def _descend(top: int, path: bytes) -> int:
    at = os.dup(top)
    for part in path.split(b"/") if path else ():
        below = os.open(part, _DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    return at


def _directory(origin: int, goal: int, path: bytes, links: _Links) -> None:
    for name in map(os.fsencode, os.listdir(origin)):
        status = os.stat(name, dir_fd=origin, follow_symlinks=False)
        inside = path + b"/" + name if path else name
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=goal)
            below = os.open(name, _DIRECTORY, dir_fd=origin)
            try:
                copy = os.open(name, _DIRECTORY, dir_fd=goal)
                try:
                    _directory(below, copy, inside, links)
                finally:
                    os.close(copy)
            finally:
                os.close(below)
        elif not links.made(status, goal, name, inside):
            _entry(origin, goal, name, status)
    _metadata(origin, goal)


def _entry(origin: int, goal: int, name: bytes, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        _file(origin, goal, name)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=origin), name, dir_fd=goal)
    else:
        # Sockets as well: mknod(2) makes their names.
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=goal)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=goal, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=goal)
    _xattrs(f"/proc/self/fd/{origin}/".encode() + name, f"/proc/self/fd/{goal}/".encode() + name)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=goal, follow_symlinks=False)


def _file(origin: int, goal: int, name: bytes) -> None:
    source = os.open(name, _READ, dir_fd=origin)
    try:
        copy = os.open(name, _NEW, 0o600, dir_fd=goal)
        try:
            if not _clone(source, copy):
                _copy_data(source, copy)
            _metadata(source, copy)
        finally:
            os.close(copy)
    finally:
        os.close(source)


def _clone(source: int, copy: int) -> bool:
    try:
        fcntl.ioctl(copy, FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def _copy_data(source: int, copy: int) -> None:
    size = os.fstat(source).st_size
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # Only a hole is left.
                break
            raise
        end = os.lseek(source, position, os.SEEK_HOLE)
        os.lseek(copy, position, os.SEEK_SET)
        while position < end:
            copied = os.sendfile(copy, source, position, end - position)
            if not copied:
                return
            position += copied
    os.ftruncate(copy, size)


def _metadata(source: int, copy: int) -> None:
    status = os.fstat(source)
    os.fchown(copy, status.st_uid, status.st_gid)
    # After the owner: changing that clears set-user-ID.
    os.fchmod(copy, stat.S_IMODE(status.st_mode))
    _xattrs(source, copy)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))


def _xattrs(source: int | bytes, copy: int | bytes) -> None:
    follow = isinstance(source, int)
    for name in os.listxattr(source, follow_symlinks=follow):
        value = os.getxattr(source, name, follow_symlinks=follow)
        os.setxattr(copy, name, value, follow_symlinks=follow)
