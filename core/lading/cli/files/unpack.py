"""Unpack a tar that a container's content made: the names in it are not to be trusted.

Every parent of an entry is opened step by step from the target directory without following
symbolic links, so no entry can lead another one out of it.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from typing import IO, Protocol

from lading.cli.errors import Failure

CHUNK = 256 * 1024
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Readable(Protocol):
    """Where the tar comes from."""

    def read(self, size: int, /) -> bytes:
        """Some bytes; none at the end."""
        ...


def unpack(
    source: Readable, target: str, *, rename: Callable[[str], str], owners: bool = False
) -> None:
    """Unpack into the directory ``target``; ``rename`` maps each entry's name.

    ``owners`` keeps uid and gid. Raises Failure for an entry that leads out of the target or that
    would replace a directory by a file.
    """
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    late: list[tuple[list[str], tarfile.TarInfo]] = []
    try:
        try:
            with tarfile.open(fileobj=source, mode="r|") as tar:  # type: ignore[call-overload]
                for info in tar:
                    parts = _parts(rename(info.name))
                    _Entry(root, parts, info, owners).make(tar, rename)
                    if info.isdir():
                        late.append((parts, info))
        except tarfile.TarError as error:
            raise Failure(f"unpack the archive: {error}") from error
        for parts, info in reversed(late):
            _finish_directory(root, parts, info)
    finally:
        os.close(root)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Failure(f'unpack "{name}": the name leads out of the target')
    return parts


def _open_parent(root: int, parts: list[str]) -> int:
    here = os.dup(root)
    for part in parts[:-1]:
        try:
            below = os.open(part, DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, DIRECTORY, dir_fd=here)
        except OSError as error:
            raise Failure(
                f'unpack "{"/".join(parts)}": "{part}" is not a directory of the target'
            ) from error
        finally:
            os.close(here)
        here = below
    return here


class _Entry:
    """One entry that is being made."""

    def __init__(self, root: int, parts: list[str], info: tarfile.TarInfo, owners: bool) -> None:
        self.root, self.parts, self.info, self.owners = root, parts, info, owners

    def make(self, tar: tarfile.TarFile, rename: Callable[[str], str]) -> None:
        if not self.parts:
            return
        parent = _open_parent(self.root, self.parts)
        try:
            self._clear(parent)
            self._make(parent, tar, rename)
        finally:
            os.close(parent)

    def _clear(self, parent: int) -> None:
        """Remove what is in the way; directories merge."""
        name = self.parts[-1]
        try:
            there = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            if not self.info.isdir():
                raise Failure(f'cannot overwrite directory "{name}" with non-directory')
        elif self.info.isdir():
            raise Failure(f'cannot overwrite non-directory "{name}" with directory')
        else:
            os.unlink(name, dir_fd=parent)

    def _make(self, parent: int, tar: tarfile.TarFile, rename: Callable[[str], str]) -> None:
        info, name = self.info, self.parts[-1]
        if info.isdir():
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
        elif info.issym():
            os.symlink(info.linkname, name, dir_fd=parent)
        elif info.islnk():
            self._link(parent, _parts(rename(info.linkname)))
            return
        elif info.isreg():
            self._write(parent, tar.extractfile(info))
            return
        elif info.isfifo():
            os.mkfifo(name, info.mode & 0o7777, dir_fd=parent)
        elif info.isdev():
            kind = stat.S_IFCHR if info.ischr() else stat.S_IFBLK
            device = os.makedev(info.devmajor, info.devminor)
            os.mknod(name, kind | info.mode & 0o7777, device, dir_fd=parent)
        self._own(lambda uid, gid: os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False))
        if info.issym():
            stamp = (info.mtime, info.mtime)
            os.utime(name, stamp, dir_fd=parent, follow_symlinks=False)

    def _link(self, parent: int, old: list[str]) -> None:
        if not old:
            raise Failure(f'unpack "{"/".join(self.parts)}": a link to nothing')
        source = _open_parent(self.root, old)
        try:
            os.link(
                old[-1], self.parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False
            )
        finally:
            os.close(source)

    def _write(self, parent: int, content: IO[bytes] | None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.parts[-1], flags, 0o600, dir_fd=parent)
        with open(descriptor, "wb") as file:
            while content and (data := content.read(CHUNK)):
                file.write(data)
            file.flush()
            self._own(lambda uid, gid: os.fchown(descriptor, uid, gid))
            os.fchmod(descriptor, self.info.mode & 0o7777)
            os.utime(descriptor, (self.info.mtime, self.info.mtime))

    def _own(self, chown: Callable[[int, int], None]) -> None:
        if self.owners:
            chown(self.info.uid, self.info.gid)


def _finish_directory(root: int, parts: list[str], info: tarfile.TarInfo) -> None:
    """Mode and times of a directory, once nothing is made in it any more."""
    if not parts:
        return
    parent = _open_parent(root, parts)
    try:
        descriptor = os.open(parts[-1], DIRECTORY, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        os.fchmod(descriptor, info.mode & 0o7777)
        os.utime(descriptor, (info.mtime, info.mtime))
    finally:
        os.close(descriptor)
