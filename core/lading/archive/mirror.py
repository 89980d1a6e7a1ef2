"""Making one tree exactly like another: for a container's root that moves to another backend.

A tar layer would lose what layers have no place for: fractions of seconds, sockets, POSIX ACLs,
attributes of ``trusted.``. The target shows the same image already, so only what differs is
written, always as a new file: where the target's backend shares files among snapshots, they stay.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from lading.archive.differ import attributes

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Inode = tuple[int, int]


@dataclass
class Mirror:
    """Two trees; nobody else may write to either. ``copied`` counts entries, ``size`` bytes."""

    source: bytes
    target: bytes
    copied: int = 0
    size: int = 0
    #: The first name of each file that has several, and which file of the source is which here.
    _first: dict[Inode, bytes] = field(default_factory=dict)
    _stands_for: dict[Inode, Inode] = field(default_factory=dict)

    def carry(self) -> None:
        """Make the target like the source. Raises OSError."""
        os.umask(0)
        self._directory(b"")

    def _directory(self, at: bytes) -> None:
        source, target = self._paths(at)
        prefix = at + b"/" if at else b""
        wanted = sorted(os.listdir(source))
        for name in set(os.listdir(target)) - set(wanted):
            _remove(target + b"/" + name)
        for name in wanted:
            self._entry(prefix + name)
        if difference(source, target):
            _metadata(source, target, os.lstat(source))

    def _entry(self, path: bytes) -> None:
        source, target = self._paths(path)
        status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode):
            if not stat.S_ISDIR(_kind(target)):
                _remove(target)
                os.mkdir(target, 0o700)
                self.copied += 1
            self._directory(path)
            return
        key = (status.st_dev, status.st_ino)
        first = self._first.get(key) if status.st_nlink > 1 else None
        if first is not None:
            self._link(first, path)
            return
        if not self._is_there(path, key):
            _remove(target)
            self.size += _copy(source, target, status)
            _metadata(source, target, status)
            self.copied += 1
        self._first[key] = path
        self._stands_for[_inode(target)] = key

    def _is_there(self, path: bytes, key: Inode) -> bool:
        """Whether the target has this very file, and not as another name of a different one."""
        source, target = self._paths(path)
        if not _kind(target) or self._stands_for.get(_inode(target), key) != key:
            return False
        return not difference(source, target)

    def _link(self, first: bytes, path: bytes) -> None:
        target, original = self.target + b"/" + path, self.target + b"/" + first
        if _kind(target) and _inode(target) == _inode(original):
            return
        _remove(target)
        os.link(original, target, follow_symlinks=False)
        self.copied += 1

    def _paths(self, path: bytes) -> tuple[bytes, bytes]:
        end = b"/" + path if path else b""
        return self.source + end, self.target + end


def disagreements(source: bytes, target: bytes) -> Iterator[str]:
    """What is not the same in two trees, a line each; every byte is compared."""
    groups: dict[Inode, Inode] = {}
    for path in _walk(source, b""):
        one, other = source + b"/" + path, target + b"/" + path
        shown = "/" + os.fsdecode(path)
        if not _kind(other):
            yield f"{shown} is missing"
            continue
        if what := difference(one, other):
            yield f"{shown}: {what}"
        status = os.lstat(one)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            mine, its = (status.st_dev, status.st_ino), _inode(other)
            if groups.setdefault(mine, its) != its:
                yield f"{shown}: not the same file as its other names"
    for path in _walk(target, b""):
        if not _kind(source + b"/" + path):
            yield f"/{os.fsdecode(path)} is too much"


def _walk(top: bytes, at: bytes) -> Iterator[bytes]:
    yield at
    for name in sorted(os.listdir(top + b"/" + at)):
        path = at + b"/" + name if at else name
        if stat.S_ISDIR(_kind(top + b"/" + path)):
            yield from _walk(top, path)
        else:
            yield path


def difference(one: bytes, other: bytes) -> str:
    """In what two entries of the same name differ; "" when they agree in all that counts."""
    a, b = os.lstat(one), os.lstat(other)
    for what, mine, its in (
        ("kind or mode", a.st_mode, b.st_mode),
        ("owner", (a.st_uid, a.st_gid), (b.st_uid, b.st_gid)),
        ("time", a.st_mtime_ns, b.st_mtime_ns),
        ("attributes", attributes(one), attributes(other)),
    ):
        if mine != its:
            return what
    if stat.S_ISLNK(a.st_mode):
        return "" if os.readlink(one) == os.readlink(other) else "target"
    if stat.S_ISCHR(a.st_mode) or stat.S_ISBLK(a.st_mode):
        return "" if a.st_rdev == b.st_rdev else "device number"
    if stat.S_ISREG(a.st_mode) and (a.st_size != b.st_size or not _same_content(one, other)):
        return "content"
    return ""


def _same_content(one: bytes, other: bytes) -> bool:
    with open(one, "rb", buffering=0) as a, open(other, "rb", buffering=0) as b:
        while True:
            data = a.read(_CHUNK)
            if data != b.read(_CHUNK):
                return False
            if not data:
                return True


def _inode(path: bytes) -> Inode:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _kind(path: bytes) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _remove(path: bytes) -> None:
    kind = _kind(path)
    if stat.S_ISDIR(kind):
        shutil.rmtree(path)
    elif kind:
        os.unlink(path)


def _copy(source: bytes, target: bytes, status: os.stat_result) -> int:
    """Make what is no directory anew; the bytes of its content."""
    if stat.S_ISREG(status.st_mode):
        return _copy_file(source, target, status.st_size)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    return 0


def _copy_file(source: bytes, target: bytes, size: int) -> int:
    """A file's content; holes stay holes (lseek(2), SEEK_DATA)."""
    origin = os.open(source, _READ)
    try:
        goal = os.open(target, _NEW, 0o600)
        try:
            os.ftruncate(goal, size)
            at = 0
            while at < size:
                try:
                    at = os.lseek(origin, at, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(origin, at, os.SEEK_HOLE)
                os.lseek(goal, at, os.SEEK_SET)
                while at < end and (done := os.sendfile(goal, origin, at, end - at)):
                    at += done
        finally:
            os.close(goal)
    finally:
        os.close(origin)
    return size


def _metadata(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Owner first, since it clears set-user-ID bits and capabilities; times last."""
    link = stat.S_ISLNK(status.st_mode)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not link:
        os.chmod(target, stat.S_IMODE(status.st_mode))
    wanted, present = attributes(source), attributes(target)
    for name in present.keys() - wanted.keys():
        os.removexattr(target, name, follow_symlinks=False)
    for name, value in wanted.items():
        if present.get(name) != value:
            os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
