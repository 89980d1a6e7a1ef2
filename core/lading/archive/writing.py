"""What the unpacker does to one file or directory, below its decisions."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from lading.archive.headers import Entry
from lading.errors import Invalid

#: Extended attributes that a layer may bring. Others are marks that the kernel would act on: of
#: overlayfs, which read from a layer directory would lead to other files, of LSMs, of IMA.
_TAKEN = ("user.", "security.capability", "system.posix_acl_")
_NOT_TAKEN = ("user.overlay.",)


def make_directory(path: bytes) -> None:
    """A directory that has no entry."""
    os.mkdir(path, 0o755)
    # One with the set-group-ID bit hands that and its group on.
    os.chown(path, 0, 0)
    os.chmod(path, 0o755)


def directory_time(path: bytes) -> int | None:
    """When a directory was changed last, None for what is not one."""
    try:
        status = os.stat(path or b".")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns if stat.S_ISDIR(status.st_mode) else None


def set_times(path: bytes, mtime: int) -> None:
    """Set both times, of a link itself. Raises OSError."""
    os.utime(path, ns=both_times(mtime), follow_symlinks=False)


def both_times(mtime: int) -> tuple[int, int]:
    """Of access and modification; what no filesystem can hold is 1970."""
    return (mtime, mtime) if abs(mtime) < 1 << 62 else (0, 0)


def set_xattrs(target: bytes | int, entry: Entry) -> None:
    """Set those of an entry's extended attributes that a layer may bring. Raises OSError."""
    follow = isinstance(target, int)
    for name, value in entry.xattrs.items():
        if not name.startswith(_TAKEN) or name.startswith(_NOT_TAKEN):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            # A filesystem without extended attributes, or a link, which takes no user.* ones.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def write(descriptor: int, view: memoryview) -> None:
    """Write all of it. Raises OSError."""
    while view:
        view = view[os.write(descriptor, view) :]


def write_sparse(descriptor: int, entry: Entry, pieces: Iterator[memoryview]) -> None:
    """Write the parts of a sparse file where its map says. Raises Invalid for a wrong map."""
    pending = memoryview(b"")
    for offset, length in entry.sparse or ():
        if offset < 0 or length < 0 or offset + length > entry.real_size:
            raise Invalid("archive: the map of a sparse file leads beyond its end")
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            if not pending:
                pending = next(pieces, pending)
                if not pending:
                    raise Invalid("archive: a sparse file has less data than its map says")
            written = os.write(descriptor, pending[:length])
            pending = pending[written:]
            length -= written
    os.ftruncate(descriptor, entry.real_size)


def touch(path: bytes) -> None:
    """Make an empty file, unless there is one. Raises OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444))
