"""Unpacking a tar stream into the root of this process, which the caller has changed before.

Since the process is chrooted into its target, the kernel itself keeps every name inside: ``..``,
absolute names and symbolic links lead nowhere else. Names that lead out are refused all the same,
since no honest layer has them.

Deletions (OCI image-spec, "Whiteouts") are written down as the target wants them: as deletions
where the target shows the parent layers (``Whiteouts`` None), or in the form of a layer directory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lading.archive import headers
from lading.archive.headers import Entry
from lading.archive.reader import Reader
from lading.errors import Invalid
from lading.hooks.filesystem import Whiteouts

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_AUFS_LINKS = b".wh..wh.plnk"
_KEEP = b".lading-plnk"

#: Extended attributes that a layer may bring. Others are marks that the kernel would act on: of
#: overlayfs, which read from a layer directory would lead to other files, of LSMs, of IMA.
_TAKEN = ("user.", "security.capability", "system.posix_acl_")
_NOT_TAKEN = ("user.overlay.",)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTRIBUTE = {
    Whiteouts.OVERLAY: "trusted.overlay.opaque",
    Whiteouts.OVERLAY_USER: "user.overlay.opaque",
}

#: An inode number and the SHA-256 of that file's content: a row of ``Options.digests`` on its way.
DIGEST_ROW = struct.Struct("<Q32s")


class NeedsParent(Exception):
    """A layer cannot be unpacked without seeing its parent; it names the entry's path."""


@dataclass
class Options:
    """How to unpack.

    ``whiteouts`` is the form of the layer directory that the root is; None means that deletions are
    carried out; with ``plain`` names with ``.wh.`` mean nothing. ``alone`` says that the parent's
    files are not visible, though the layer has one. ``owner`` overrides uid and gid. ``digests``
    is filled with the SHA-256 of each file's content by inode number; sparse ones are left out.
    """

    whiteouts: Whiteouts | None = None
    plain: bool = False
    alone: bool = False
    keep_directories: bool = False
    owner: tuple[int, int] | None = None
    digests: dict[int, bytes] | None = None


@dataclass
class Unpacker:
    """Unpacks one stream; ``size`` is the sum of the files' sizes."""

    options: Options
    size: int = 0
    entries: int = 0
    _times: list[tuple[bytes, int]] = field(default_factory=list)
    _made: set[bytes] = field(default_factory=set)
    _deleted: set[bytes] = field(default_factory=set)
    _directories: set[bytes] = field(default_factory=lambda: {b""})
    _links: bool = False

    def run(self, reader: Reader) -> None:
        """Unpack everything. Raises Invalid, NeedsParent, OSError."""
        os.umask(0)
        for entry in reader:
            self._entry(entry, reader)
        reader.drain()
        if self._links:
            shutil.rmtree(_KEEP, ignore_errors=True)
        # Last, since what is made in a directory changes its times.
        for path, mtime in reversed(self._times):
            _set_times(path, mtime)

    def _entry(self, entry: Entry, reader: Reader) -> None:
        path = clean(entry.name)
        self.entries += 1
        if not path:
            if entry.type == headers.DIRECTORY and not self.options.keep_directories:
                self._directory_metadata(b".", entry)
            return
        above, _, name = path.rpartition(b"/")
        if name.startswith(PREFIX) and not self.options.plain:
            self._special(above, name, entry, reader)
            return
        if not self.options.plain and path.startswith(_AUFS_LINKS + b"/"):
            self._keep_link_source(name, entry, reader)
            return
        self._parents(above)
        try:
            self._make(path, entry, reader)
        except (ValueError, OverflowError) as error:
            # A NUL in a name, or a number that no system call takes.
            raise Invalid(f'archive: entry "{os.fsdecode(path)}": {error}') from error
        except OSError as error:
            raise OSError(
                error.errno, f"unpack: {os.strerror(error.errno or 0)}", os.fsdecode(path)
            ) from error
        self._made.add(path)

    def _parents(self, above: bytes) -> None:
        if above in self._directories:
            return
        self._parents(above.rpartition(b"/")[0])
        if not _is_directory(above):
            if self.options.alone:
                # The parent layer may have it, with a mode and an owner that must stay.
                raise NeedsParent(os.fsdecode(above))
            self._clear(above)
            os.mkdir(above, 0o755)
            self._made.add(above)
        self._directories.add(above)

    def _make(self, path: bytes, entry: Entry, reader: Reader) -> None:
        kind = entry.type
        if kind in (headers.FILE, b"S"):
            self._file(path, entry, reader)
        elif kind == headers.DIRECTORY:
            self._directory(path, entry)
        elif kind == headers.SYMLINK:
            self._retry(path, lambda: os.symlink(entry.link, path))
            self._metadata(path, entry)
        elif kind == headers.LINK:
            self._hard_link(path, entry)
        elif kind in (headers.CHARACTER, headers.BLOCK_DEVICE, headers.FIFO):
            self._node(path, entry)
        # Other types (multi-volume, vendor extensions) carry nothing that a file system holds.

    def _retry(self, path: bytes, make: Callable[[], None]) -> None:
        """Make something new, in place of what may be there."""
        try:
            make()
        except FileExistsError:
            self._clear(path)
            make()

    def _clear(self, path: bytes) -> None:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            if self.options.keep_directories:
                raise Invalid(
                    f'cannot overwrite directory "{os.fsdecode(path)}" with non-directory'
                )
            shutil.rmtree(path)
            gone = path + b"/"
            self._directories = {
                d for d in self._directories if d != path and not d.startswith(gone)
            }
            self._made = {m for m in self._made if not m.startswith(gone)}
        else:
            os.unlink(path)

    def _file(self, path: bytes, entry: Entry, reader: Reader) -> None:
        try:
            descriptor = os.open(path, _NEW, entry.mode & 0o777)
        except FileExistsError:
            self._clear(path)
            descriptor = os.open(path, _NEW, entry.mode & 0o777)
        try:
            if entry.sparse is not None:
                _write_sparse(descriptor, entry, reader.data())
            else:
                self._content(descriptor, reader)
            self.size += entry.real_size
            uid, gid = self.options.owner or (entry.uid, entry.gid)
            if uid or gid:
                os.fchown(descriptor, uid, gid)
            if entry.mode & 0o7000:
                # After the owner, which takes set-user-ID away.
                os.fchmod(descriptor, entry.mode)
            if entry.xattrs:
                _set_xattrs(descriptor, entry)
            os.utime(descriptor, ns=_both_times(entry.mtime))
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, reader: Reader) -> None:
        if self.options.digests is None:
            for piece in reader.data():
                _write(descriptor, piece)
            return
        digest = hashlib.sha256()
        for piece in reader.data():
            digest.update(piece)
            _write(descriptor, piece)
        self.options.digests[os.fstat(descriptor).st_ino] = digest.digest()

    def _directory(self, path: bytes, entry: Entry) -> None:
        try:
            os.mkdir(path, entry.mode & 0o777)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                if self.options.keep_directories:
                    raise Invalid(
                        f'cannot overwrite non-directory "{os.fsdecode(path)}" with directory'
                    ) from None
                self._clear(path)
                os.mkdir(path, entry.mode & 0o777)
        if path in self._deleted:
            self._opaque(path)
        self._directory_metadata(path, entry)
        self._directories.add(path)

    def _directory_metadata(self, path: bytes, entry: Entry) -> None:
        self._metadata(path, entry)
        self._times.append((path, entry.mtime))

    def _metadata(self, path: bytes, entry: Entry) -> None:
        uid, gid = self.options.owner or (entry.uid, entry.gid)
        os.chown(path, uid, gid, follow_symlinks=False)
        if entry.type != headers.SYMLINK:
            os.chmod(path, entry.mode)
        if entry.xattrs:
            _set_xattrs(path, entry)
        if entry.type != headers.DIRECTORY:
            _set_times(path, entry.mtime)

    def _hard_link(self, path: bytes, entry: Entry) -> None:
        target = clean(entry.link)
        if target.startswith(_AUFS_LINKS + b"/"):
            target = _KEEP + b"/" + target.rpartition(b"/")[2]
        try:
            self._retry(path, lambda: os.link(target, path, follow_symlinks=False))
        except FileNotFoundError as error:
            if self.options.alone:
                raise NeedsParent(os.fsdecode(target)) from error
            raise Invalid(
                f'archive: hard link "{os.fsdecode(path)}" to "{os.fsdecode(entry.link)}", '
                "which is not there"
            ) from error

    def _node(self, path: bytes, entry: Entry) -> None:
        kind = {headers.CHARACTER: stat.S_IFCHR, headers.BLOCK_DEVICE: stat.S_IFBLK}.get(
            entry.type, stat.S_IFIFO
        )
        device = os.makedev(entry.major, entry.minor)
        self._retry(path, lambda: os.mknod(path, kind | entry.mode, device))
        self._metadata(path, entry)

    def _special(self, above: bytes, name: bytes, entry: Entry, reader: Reader) -> None:
        """A whiteout, or a file of AUFS's own."""
        if name == OPAQUE:
            self._parents(above)
            self._opaque(above)
        elif not name.startswith(_AUFS):
            self._parents(above)
            self._whiteout(above, name)

    def _whiteout(self, above: bytes, name: bytes) -> None:
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise Invalid(f'archive: whiteout "{os.fsdecode(name)}" of no name')
        victim = (above + b"/" if above else b"") + hidden
        if victim in self._made:
            # Both deleted and made anew by this layer: the order in the archive does not matter.
            if stat.S_ISDIR(os.lstat(victim).st_mode):
                self._opaque(victim)
            return
        form = self.options.whiteouts
        self._clear(victim)
        if form is not None:
            self._deleted.add(victim)
        if form in _ATTRIBUTE:
            os.mknod(victim, stat.S_IFCHR, os.makedev(0, 0))
        elif form is Whiteouts.AUFS:
            _touch((above + b"/" if above else b"") + name)

    def _opaque(self, above: bytes) -> None:
        form = self.options.whiteouts
        if form is None:
            for name in os.listdir(above or b"."):
                path = (above + b"/" if above else b"") + name
                if path not in self._made:
                    self._clear(path)
                elif stat.S_ISDIR(os.lstat(path).st_mode):
                    # Made anew by this layer, on top of a directory that is hidden now.
                    self._opaque(path)
        elif form is Whiteouts.AUFS:
            _touch((above + b"/" if above else b"") + OPAQUE)
        else:
            os.setxattr(above or b".", _ATTRIBUTE[form], b"y")

    def _keep_link_source(self, name: bytes, entry: Entry, reader: Reader) -> None:
        """AUFS of 2014 put files with several names here, to be linked from elsewhere."""
        if entry.type == headers.FILE:
            os.makedirs(_KEEP, exist_ok=True)
            self._links = True
            self._file(_KEEP + b"/" + name, entry, reader)


def clean(name: bytes) -> bytes:
    """A name without ``.``, ``..`` and doubled slashes; "" for the root. Raises Invalid."""
    if b"/." not in name and b"//" not in name and not name.startswith((b"/", b".")):
        return name.rstrip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Invalid(f'archive: the name "{os.fsdecode(name)}" leads out of the root')
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path or b".").st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _set_times(path: bytes, mtime: int) -> None:
    os.utime(path, ns=_both_times(mtime), follow_symlinks=False)


def _both_times(mtime: int) -> tuple[int, int]:
    """Of access and modification; what no filesystem can hold is 1970."""
    return (mtime, mtime) if abs(mtime) < 1 << 62 else (0, 0)


def _set_xattrs(target: bytes | int, entry: Entry) -> None:
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


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write_sparse(descriptor: int, entry: Entry, pieces: Iterator[bytes]) -> None:
    pending = memoryview(b"")
    for offset, length in entry.sparse or ():
        if offset < 0 or length < 0 or offset + length > entry.real_size:
            raise Invalid("archive: the map of a sparse file leads beyond its end")
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            if not pending:
                pending = memoryview(next(pieces, b""))
                if not pending:
                    raise Invalid("archive: a sparse file has less data than its map says")
            written = os.write(descriptor, pending[:length])
            pending = pending[written:]
            length -= written
    os.ftruncate(descriptor, entry.real_size)


def _touch(path: bytes) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444))
