"""Writing trees as tar streams, in a fixed order, with nothing that depends on the moment."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Protocol

from lading.archive import headers
from lading.archive.headers import BLOCK, Entry

CHUNK = 1 << 20

#: Extended attributes that belong into layers: others are the host's own business.
_KEPT = ("security.capability", "user.")
_NOT_KEPT = ("user.overlay.", "trusted.")


class Digest(Protocol):
    """What hashlib's objects are."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more data."""
        ...


class Writer:
    """A tar stream into a descriptor, which it does not own. ``total`` counts the bytes.

    Times of files after ``latest``, in nanoseconds, become that.
    """

    def __init__(self, out: int, digest: Digest | None = None, latest: int | None = None) -> None:
        self._out, self._digest, self._latest = out, digest, latest
        self._parts: list[bytes | memoryview] = []
        self._pending = 0
        self._buffer = memoryview(b"")
        self._links: dict[tuple[int, int], bytes] = {}
        self.total = 0

    def add(self, entry: Entry, data: bytes = b"") -> None:
        """One entry with its content."""
        self._put(headers.build(entry))
        if data:
            self._put(data)
            self._pad(len(data))

    def add_path(
        self,
        path: bytes,
        name: bytes,
        status: os.stat_result | None = None,
        content: Digest | None = None,
    ) -> None:
        """The file, directory, link or node at ``path`` (not followed) under ``name``.

        Further names of a file that was written already become hard links. Sockets are left out.
        The content of a regular file that is written goes through ``content`` as well.
        """
        status = status or os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        entry = Entry(
            name,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            # Written in whole seconds, as layers have everywhere else.
            mtime=self._time(status.st_mtime_ns),
        )
        if kind == stat.S_IFDIR:
            entry.type, entry.name = headers.DIRECTORY, name + b"/" if name else b"./"
        elif status.st_nlink > 1 and kind != stat.S_IFSOCK:
            key = (status.st_dev, status.st_ino)
            if (first := self._links.setdefault(key, name)) != name:
                entry.type, entry.link = headers.LINK, first
                self._put(headers.build(entry))
                return
        if kind == stat.S_IFREG:
            self._file(path, entry, content)
            return
        if not _describe(path, entry, kind, status):
            return
        entry.xattrs = attributes(path)
        self._put(headers.build(entry))

    def _time(self, mtime: int) -> int:
        return mtime if self._latest is None else min(mtime, self._latest)

    def close(self) -> None:
        """Write the trailer and what is pending."""
        self._put(bytes(2 * BLOCK))
        self._flush()

    def _file(self, path: bytes, entry: Entry, content: Digest | None) -> None:
        # Not blocking: it may have become a pipe since it was looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return
            entry.size = status.st_size
            entry.xattrs = attributes(descriptor)
            self._put(headers.build(entry))
            left = entry.size
            while left:
                piece = self._read(descriptor, min(left, CHUNK))
                if not piece:
                    # It shrank while it was read: the header has promised the rest.
                    piece = bytes(min(left, CHUNK))
                if content is not None:
                    content.update(piece)
                self._put(piece)
                left -= len(piece)
            self._pad(entry.size)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, size: int) -> bytes | memoryview:
        """Some of a file; whole pieces are read into the same memory, since they do not pend."""
        if size < CHUNK:
            return os.read(descriptor, size)
        if not self._buffer:
            self._buffer = memoryview(bytearray(CHUNK))
        read = os.readv(descriptor, [self._buffer])
        return self._buffer if read == CHUNK else bytes(self._buffer[:read])

    def _pad(self, size: int) -> None:
        if size % BLOCK:
            self._put(bytes(-size % BLOCK))

    def _put(self, data: bytes | memoryview) -> None:
        if len(data) >= CHUNK:
            self._flush()
            self._write(data)
            return
        self._parts.append(data)
        self._pending += len(data)
        if self._pending >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._pending = [], 0
        self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        if self._digest is not None:
            self._digest.update(data)
        self.total += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]


def _describe(path: bytes, entry: Entry, kind: int, status: os.stat_result) -> bool:
    if kind == stat.S_IFLNK:
        entry.type, entry.link = headers.SYMLINK, os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry.type = headers.CHARACTER if kind == stat.S_IFCHR else headers.BLOCK_DEVICE
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind == stat.S_IFIFO:
        entry.type = headers.FIFO
    return kind != stat.S_IFSOCK


def attributes(target: bytes | int) -> dict[str, bytes]:
    """The extended attributes that belong into layers, sorted; a link is not followed."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    if not names:
        return {}
    return {
        name: os.getxattr(target, name, follow_symlinks=follow)
        for name in sorted(names)
        if name.startswith(_KEPT) and not name.startswith(_NOT_KEPT)
    }


def walk(top: bytes, same_device: bool = False) -> Iterator[tuple[bytes, os.stat_result]]:
    """Everything below ``top`` as (path relative to it, lstat), sorted, parents first.

    What goes away while it is walked is left out: a container may be running in it.
    """
    device = os.lstat(top).st_dev
    stack = [b""]
    while stack:
        relative = stack.pop()
        if relative:
            try:
                status = os.lstat(top + b"/" + relative)
            except FileNotFoundError:
                continue
            yield relative, status
            if not stat.S_ISDIR(status.st_mode) or (same_device and status.st_dev != device):
                continue
        try:
            inside = os.listdir(top + b"/" + relative if relative else top)
        except (FileNotFoundError, NotADirectoryError):
            continue
        prefix = relative + b"/" if relative else b""
        stack += [prefix + name for name in sorted(inside, reverse=True)]


def tree(writer: Writer, top: bytes, skip: Callable[[bytes], bool] | None = None) -> None:
    """Write everything below ``top``, without ``top`` itself."""
    for relative, status in walk(top):
        if skip is None or not skip(relative):
            writer.add_path(top + b"/" + relative, relative, status)
