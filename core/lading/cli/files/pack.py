"""Files as a tar, made while it is sent: nothing but the chunk at hand is in memory."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator

from lading.cli.errors import Failure

CHUNK = 256 * 1024
END = b"\0" * 1024
CAPABILITY = "security.capability"


class Packer:
    """Makes the entries of one tar; remembers hard links.

    With ``owner`` set all files belong to that user and group, as in a build context.
    """

    def __init__(self, *, owner: tuple[int, int] | None = None) -> None:
        self._owner = owner
        self._seen: dict[tuple[int, int], str] = {}

    def entry(self, path: str, name: str) -> Iterator[bytes]:
        """Header and content of one file; sockets are left out, as a tar cannot hold them."""
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            return
        info = self._info(path, name, status)
        if not info.isreg():
            yield _header(info)
            return
        with open(path, "rb") as file:
            yield _header(info)
            left = info.size
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise Failure(f'read "{path}": the file became shorter while it was sent')
                left -= len(data)
                yield data
        yield b"\0" * (-info.size % tarfile.BLOCKSIZE)

    def content(self, name: str, data: bytes, *, mode: int = 0o644) -> Iterator[bytes]:
        """A file that is on no disk."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        yield _header(info) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)

    def tree(self, path: str, name: str) -> Iterator[bytes]:
        """A file, or a directory with all below it."""
        yield from self.entry(path, name)
        if stat.S_ISDIR(os.lstat(path).st_mode):
            for child in sorted(os.listdir(path)):
                yield from self.tree(os.path.join(path, child), f"{name}/{child}")

    def _info(self, path: str, name: str, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = self._owner or (status.st_uid, status.st_gid)
        info.mtime = int(status.st_mtime)
        _set_kind(info, path, status)
        if info.isreg() and status.st_nlink > 1:
            first = self._seen.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        if info.isreg():
            capability = _capability(path)
            if capability:
                info.pax_headers = {f"SCHILY.xattr.{CAPABILITY}": capability}
        return info


def _set_kind(info: tarfile.TarInfo, path: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(mode):
        info.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        info.size = status.st_size


def _capability(path: str) -> str:
    try:
        value = os.getxattr(path, CAPABILITY, follow_symlinks=False)
    except OSError:
        return ""
    return value.decode("utf-8", "surrogateescape")


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
