"""Unpacking a tar stream into the root of this process, which the caller has changed before.

Since the process is chrooted into its target, the kernel itself keeps every name inside: ``..``,
absolute names and symbolic links lead nowhere else. Names that lead out are refused all the same,
since no honest layer has them.

Deletions (OCI image-spec, "Whiteouts") are written down as the target wants them: as deletions
where the target shows the parent layers (``Whiteouts`` None), or in the form of a layer directory.

Layers may leave out the directories above their files. Where the parent's files are not visible
such directories are made, and named as ``implied``: :mod:`lading.archive.implied` gives them
later what the parent has at their places.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from lading.archive import headers, writing
from lading.archive.headers import Entry
from lading.archive.reader import Reader
from lading.errors import Invalid
from lading.hooks.filesystem import Whiteouts

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_AUFS_LINKS = b".wh..wh.plnk"
_KEEP = b".lading-plnk"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTRIBUTE = {
    Whiteouts.OVERLAY: "trusted.overlay.opaque",
    Whiteouts.OVERLAY_USER: "user.overlay.opaque",
}

#: An inode number and the SHA-256 of that file's content: a row of ``Options.digests`` on its way.
DIGEST_ROW = struct.Struct("<Q32s")


#: With more implied directories and deletions (bytes of their paths) a layer is unpacked with its
#: parent in view.
MOST_UNSETTLED = 4 << 20
#: The paths of directories are remembered; of files that are made only a number is, so that names
#: of any length and number fit into memory.
MOST_NAMES = 256 << 20


#: What the kernel says of names that cannot be: loops, empty targets, files as directories.
_ARCHIVES_FAULT = frozenset(
    (
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
    )
)


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
    _times: dict[bytes, int] = field(default_factory=dict)
    _made: set[int] = field(default_factory=set)
    _deleted: set[bytes] = field(default_factory=set)
    _filled: set[bytes] = field(default_factory=set)
    _opaques: set[bytes] = field(default_factory=set)
    _directories: set[bytes] = field(default_factory=lambda: {b""})
    _implied: set[bytes] = field(default_factory=set)
    _links: bool = False
    _unsettled: int = 0
    _names: int = 0

    @property
    def whiteouts(self) -> list[bytes]:
        """What was marked as deleted, in a form that shows where the parent has no such thing."""
        if self.options.whiteouts not in _ATTRIBUTE:
            return []
        left = self._deleted - self._directories
        return sorted(path for path in left if not self._has_made(path))

    def _has_made(self, path: bytes) -> bool:
        """Whether this layer has an entry for a path; hashes of bytes have a secret key."""
        return hash(path) in self._made

    def _remember_directory(self, path: bytes) -> None:
        """Remember a directory. Raises Invalid when there are too many."""
        if path not in self._directories:
            self._directories.add(path)
            self._names += len(path)
            if self._names > MOST_NAMES:
                raise Invalid(f"archive: more than {MOST_NAMES} bytes of names of directories")

    def _left_to_settle(self, path: bytes, among: set[bytes]) -> None:
        among.add(path)
        self._unsettled += len(path) if self.options.alone else 0
        if self._unsettled > MOST_UNSETTLED:
            raise NeedsParent(os.fsdecode(path))

    @property
    def implied(self) -> list[bytes]:
        """Directories without an entry that may be the parent's as well, parents first."""
        return sorted(path for path in self._implied if not self._hides_above(path))

    def _hides_above(self, path: bytes) -> bool:
        """Whether what the parent has at a path is hidden by this very layer."""
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._opaques:
                return True
        return False

    def run(self, reader: Reader) -> None:
        """Unpack everything. Raises Invalid, NeedsParent, OSError."""
        os.umask(0)
        for entry in reader:
            self._entry(entry, reader)
        reader.drain()
        if self._links:
            shutil.rmtree(_KEEP, ignore_errors=True)
        self._drop_hidden()
        # Last, since what is made in a directory changes its times.
        for path, mtime in reversed(self._times.items()):
            with suppress(FileNotFoundError, NotADirectoryError):
                # Gone again, by another name.
                writing.set_times(path, mtime)

    def _drop_hidden(self) -> None:
        """Remove what only deletes things that are hidden by this very layer as a whole.

        It would be seen: overlayfs looks for marks of deletion in merged directories only.
        """
        for path in self.whiteouts:
            if self._hides_above(path):
                os.unlink(path)
                self._deleted.discard(path)

    def _named(self, path: bytes, entry: Entry, reader: Reader) -> None:
        above, _, name = path.rpartition(b"/")
        if name.startswith(PREFIX) and not self.options.plain:
            self._special(above, name, entry, reader)
        elif not self.options.plain and path.startswith(_AUFS_LINKS + b"/"):
            self._keep_link_source(name, entry, reader)
        else:
            self._parents(above)
            self._make(path, entry, reader)
            self._made.add(hash(path))
            while above and above not in self._filled:
                self._filled.add(above)
                above = above.rpartition(b"/")[0]

    def _entry(self, entry: Entry, reader: Reader) -> None:
        path = headers.clean(entry.name)
        self.entries += 1
        if not path:
            if entry.type == headers.DIRECTORY and not self.options.keep_directories:
                self._directory_metadata(b".", entry)
            return
        try:
            self._named(path, entry, reader)
        except (ValueError, OverflowError) as error:
            # A NUL in a name, or a number that no system call takes.
            raise Invalid(f'archive: entry "{os.fsdecode(path)}": {error}') from error
        except OSError as error:
            # EPERM is link(2)'s answer to a directory.
            linked = error.errno == errno.EPERM and entry.type == headers.LINK
            if error.errno in _ARCHIVES_FAULT or linked:
                reason = os.strerror(error.errno or 0)
                raise Invalid(f'archive: entry "{os.fsdecode(path)}": {reason}') from error
            raise OSError(
                error.errno, f"unpack: {os.strerror(error.errno or 0)}", os.fsdecode(path)
            ) from error

    def _parents(self, above: bytes) -> None:
        if above in self._directories:
            return
        self._parents(above.rpartition(b"/")[0])
        if self.options.alone:
            self._imply(above)
        elif (mtime := writing.directory_time(above)) is None:
            self._clear(above)
            writing.make_directory(above)
        elif not self.options.plain:
            # It is the parent's, and stays as it is.
            self._times[above] = mtime
        self._remember_directory(above)

    def _imply(self, path: bytes) -> None:
        """Make a directory that has no entry, so far, while the parent is not visible."""
        try:
            writing.make_directory(path)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                return
            if path not in self._deleted:
                # A link of this layer, say, that leads to a directory of the parent.
                raise NeedsParent(os.fsdecode(path)) from None
            self._clear(path)
            writing.make_directory(path)
        if path in self._deleted:
            self._opaque(path)
        else:
            self._left_to_settle(path, self._implied)

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
        if path in self._implied:
            # Where its files belong depends on what the parent has there.
            raise NeedsParent(os.fsdecode(path))
        if stat.S_ISDIR(mode):
            if self.options.keep_directories:
                raise Invalid(
                    f'cannot overwrite directory "{os.fsdecode(path)}" with non-directory'
                )
            shutil.rmtree(path)
            self._forget(path)
        else:
            os.unlink(path)
            if path in self._directories:
                # A link that led to one.
                self._forget(path)

    def _forget(self, path: bytes) -> None:
        """Drop what is known of a directory that is gone, and of what was in it."""
        inside = path + b"/"
        for known in (
            self._deleted, self._directories, self._filled, self._implied, self._opaques,
        ):  # fmt: skip
            known -= {d for d in known if d == path or d.startswith(inside)}
        for gone in [t for t in self._times if t == path or t.startswith(inside)]:
            del self._times[gone]

    def _file(self, path: bytes, entry: Entry, reader: Reader) -> None:
        try:
            descriptor = os.open(path, _NEW, entry.mode & 0o777)
        except FileExistsError:
            self._clear(path)
            descriptor = os.open(path, _NEW, entry.mode & 0o777)
        try:
            if entry.sparse is not None:
                writing.write_sparse(descriptor, entry, reader.data())
            else:
                self._content(descriptor, reader)
            self.size += entry.real_size
            # Also for root: a directory with the set-group-ID bit has given it its own group.
            os.fchown(descriptor, *(self.options.owner or (entry.uid, entry.gid)))
            if entry.mode & 0o7000:
                # After the owner, which takes set-user-ID away.
                os.fchmod(descriptor, entry.mode)
            if entry.xattrs:
                writing.set_xattrs(descriptor, entry)
            os.utime(descriptor, ns=writing.both_times(entry.mtime))
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, reader: Reader) -> None:
        if self.options.digests is None:
            for piece in reader.data():
                writing.write(descriptor, piece)
            return
        digest = hashlib.sha256()
        for piece in reader.data():
            digest.update(piece)
            writing.write(descriptor, piece)
        self.options.digests[os.fstat(descriptor).st_ino] = digest.digest()

    def _directory(self, path: bytes, entry: Entry) -> None:
        if path in self._implied:
            # Its entry comes after what is in it, which may belong elsewhere.
            raise NeedsParent(os.fsdecode(path))
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
                if self.options.whiteouts is not None:
                    # What this layer had in its place has hidden a directory of the parent.
                    self._left_to_settle(path, self._deleted)
        if path in self._deleted:
            self._opaque(path)
        self._directory_metadata(path, entry)
        self._remember_directory(path)

    def _directory_metadata(self, path: bytes, entry: Entry) -> None:
        self._metadata(path, entry)
        self._times[path] = entry.mtime

    def _metadata(self, path: bytes, entry: Entry) -> None:
        uid, gid = self.options.owner or (entry.uid, entry.gid)
        os.chown(path, uid, gid, follow_symlinks=False)
        if entry.type != headers.SYMLINK:
            os.chmod(path, entry.mode)
        if entry.xattrs:
            writing.set_xattrs(path, entry)
        if entry.type != headers.DIRECTORY:
            writing.set_times(path, entry.mtime)

    def _hard_link(self, path: bytes, entry: Entry) -> None:
        target = headers.clean(entry.link)
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
        if self._has_made(victim) or victim in self._filled:
            # Both deleted and made anew by this layer: the order in the archive does not matter.
            if os.path.isdir(victim) and not os.path.islink(victim):
                self._opaque(victim)
                self._renew(victim)
            return
        form = self.options.whiteouts
        self._clear(victim)
        if form is not None:
            self._left_to_settle(victim, self._deleted)
        if form in _ATTRIBUTE:
            os.mknod(victim, stat.S_IFCHR, os.makedev(0, 0))
        elif form is Whiteouts.AUFS:
            writing.touch((above + b"/" if above else b"") + name)

    def _opaque(self, above: bytes) -> None:
        self._opaques.add(above)
        form = self.options.whiteouts
        if form is None:
            for name in os.listdir(above or b"."):
                path = (above + b"/" if above else b"") + name
                if not self._has_made(path) and path not in self._filled:
                    self._clear(path)
                elif stat.S_ISDIR(os.lstat(path).st_mode):
                    # Made anew by this layer, on top of a directory that is hidden now.
                    self._opaque(path)
                    self._renew(path)
        elif form is Whiteouts.AUFS:
            writing.touch((above + b"/" if above else b"") + OPAQUE)
        else:
            os.setxattr(above or b".", _ATTRIBUTE[form], b"y")

    def _renew(self, path: bytes) -> None:
        """A directory without an entry takes nothing over from one that is hidden now."""
        if path in self._implied:
            raise NeedsParent(os.fsdecode(path))
        if not self._has_made(path):
            os.chown(path, 0, 0)
            os.chmod(path, 0o755)
            self._times.pop(path, None)

    def _keep_link_source(self, name: bytes, entry: Entry, reader: Reader) -> None:
        """AUFS of 2014 put files with several names here, to be linked from elsewhere."""
        if entry.type == headers.FILE:
            os.makedirs(_KEEP, exist_ok=True)
            self._links = True
            self._file(_KEEP + b"/" + name, entry, reader)
