"""The layer of COPY, ADD and WORKDIR, written straight from the source without a container.

This runs as a task, in a root that shows just the two trees: the target, whose links decide where
files go, and the source. Every path is resolved inside its own tree.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from lading.archive import headers, pack, tasks
from lading.build.modes import Chmod
from lading.build.sources import (
    Ambiguous,
    Content,
    Digests,
    Entry,
    InitLayer,
    Sources,
    content_of,
    resolve,
    shown_path,
)
from lading.errors import Invalid
from lading.linux import paths

_TARGET, _SOURCE = b"/lower", b"/upper"


def copy(args: Mapping[str, Any], fds: Sequence[int]) -> dict[str, Any] | None:
    """Write the layer to a descriptor; its digest, length, sizes, and with ``content`` the digest
    of what it is made of, which comes of the same reading.

    None when the images have to be seen without the init layer.
    """
    try:
        return _copy(args, fds)
    except Ambiguous:
        return None


def _copy(args: Mapping[str, Any], fds: Sequence[int]) -> dict[str, Any]:
    tasks._enter_both(args)
    digest = hashlib.sha256()
    writer = pack.Writer(fds[0], digest)
    with (
        paths.opened_root(_TARGET.decode()) as target,
        paths.opened_root(_SOURCE.decode()) as source,
    ):
        init = InitLayer(_SOURCE) if args["init_source"] else None
        work = _Copy(args, writer, target, Sources(_SOURCE, source, args["exclude"], init))
        work.run()
    writer.close()
    return {
        "digest": f"sha256:{digest.hexdigest()}",
        "length": writer.total,
        "size": work.size,
        "entries": work.entries,
        "content": work.content.shown() if args["content"] else "",
    }


def content(args: Mapping[str, Any], fds: Sequence[int]) -> str | None:
    """Only the digest of what would be copied; None as :func:`copy`."""
    tasks._enter({**args, "rootfs": args["upper"], "binds": [], "pid": 0})
    with paths.opened_root("/") as root:
        init = InitLayer(b"") if args["init_source"] else None
        try:
            return content_of(
                Sources(b"", root, args["exclude"], init), args["sources"], args["files"],
                Digests(), parents=args["parents"], owners=args["keep"],
            )  # fmt: skip
        except Ambiguous:
            return None


class _Copy:
    def __init__(
        self, args: Mapping[str, Any], writer: pack.Writer, target: int, sources: Sources
    ) -> None:
        self._args, self._writer = args, writer
        self._target, self._sources = target, sources
        self._check = InitLayer(_TARGET).check if args["init_target"] else None
        self._made: set[bytes] = set()
        self._owner = _owner(args["owner"], target)
        self._mtime: int | None = args["mtime"]
        self._chmod = Chmod(args["chmod"]) if args["chmod"] else None
        self._keep = self._consume = False
        self._digests: dict[int, bytes] = {}
        self.content = Content(owners=args["keep"])
        self.size = self.entries = 0

    def run(self) -> None:
        """Copy everything that was asked for."""
        dest = os.fsencode(self._args["dest"])
        place = self._resolve(dest)
        files = self._args["files"]
        found = [
            (path, pattern) for pattern in self._args["sources"] for path in self._matching(pattern)
        ]
        # Of several one may be another, or in it.
        self._consume = self._args["consume"] and len(found) == 1
        count = len(found) + len(files)
        if not count:
            self._directory(place)
            return
        into = dest.endswith(b"/") or self._args["parents"]
        if count > 1 and not into:
            raise Invalid(
                "When using COPY with more than one source file, the destination must be a "
                "directory and end with a /"
            )
        into = into or self._is_directory(place)
        for path, pattern in found:
            self._keep = self._args["keep"] and pattern in self._args["unpacked"]
            self._one(path, shown_path(path, pattern), place, into=into)
        for name, content in files:
            self.content.document(name, content)
            where = posixpath.join(place, os.fsencode(name)) if into else place
            self._inline(self._resolve(where), content.encode())

    def _matching(self, pattern: str) -> list[bytes]:
        return self._sources.matching(pattern, deep=self._args["parents"])

    def _one(self, path: bytes, shown: bytes, place: bytes, *, into: bool) -> None:
        """Copy a source; ``shown`` is what stays of its name with ``--parents``."""
        self.content.begin(shown if self._args["parents"] else b"")
        whole = False
        for entry in self._sources.entries(path):
            if not entry.relative:
                whole = True
                place = self._shown_place(place, shown)
                self._directory(place)
                self.content.add(entry, b"")
            elif whole:
                where = posixpath.join(place, entry.relative)
                if stat.S_ISDIR(entry.status.st_mode):
                    where = self._resolve(where)
                else:
                    above = self._resolve(posixpath.dirname(where))
                    where = posixpath.join(above, posixpath.basename(where))
                self._entry(entry, where)
            else:
                place = self._shown_place(place, posixpath.dirname(shown))
                where = posixpath.join(place, entry.relative) if into else place
                self._entry(entry, self._resolve(where, last=False))

    def _shown_place(self, place: bytes, above: bytes) -> bytes:
        """Where things go that stand below ``above`` in the source."""
        if not self._args["parents"]:
            return place
        return self._resolve(posixpath.join(place, above))

    def _entry(self, entry: Entry, where: bytes) -> None:
        status = entry.status
        directory = stat.S_ISDIR(status.st_mode)
        if not directory and self._is_directory(where):
            raise Invalid(f"cannot copy to directory: {os.fsdecode(where)}")
        self._directory(posixpath.dirname(where))
        fresh = not directory or where not in self._made
        if directory:
            self._made.add(where)
        digest = b""
        if fresh:
            digest = self._write(entry, where)
            self.entries += 1
            self.size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if self._args["content"]:
            self.content.add(entry, digest)
        if self._consume and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            # The layer takes over its room on the disk, or in memory where it was not written yet.
            os.unlink(entry.real)

    def _write(self, entry: Entry, where: bytes) -> bytes:
        """Write an entry as the instruction wants it; the digest of its content."""
        status, mode = entry.status, entry.status.st_mode
        if self._chmod is not None and not stat.S_ISLNK(mode):
            kind = stat.S_IFMT(mode)
            mode = kind | self._chmod.of(mode, directory=kind == stat.S_IFDIR)
        uid, gid = (status.st_uid, status.st_gid) if self._keep else self._owner
        mtime = status.st_mtime_ns if self._mtime is None else self._mtime
        shown = os.stat_result(
            (mode, *status[1:4], uid, gid, status.st_size, 0, 0, 0),
            {"st_mtime_ns": mtime, "st_rdev": status.st_rdev},
        )
        if not stat.S_ISREG(mode) or not self._args["content"]:
            self._writer.add_path(entry.real, where, shown)
            return b""
        digest = hashlib.sha256()
        self._writer.add_path(entry.real, where, shown, digest)
        # A further name of a file is only a link to the first.
        return self._digests.setdefault(status.st_ino, digest.digest())

    def _inline(self, where: bytes, content: bytes) -> None:
        self._directory(posixpath.dirname(where))
        mode = self._chmod.of(0o644, directory=False) if self._chmod else 0o644
        self._writer.add(self._header(where, mode, len(content)), content)
        self.entries += 1
        self.size += len(content)

    def _directory(self, place: bytes) -> None:
        """Entries for directories that the target has not got."""
        parts = place.split(b"/") if place else []
        for end in range(1, len(parts) + 1):
            path = b"/".join(parts[:end])
            if path in self._made or self._is_directory(path):
                continue
            if paths.exists(self._target, path):
                raise Invalid(f"not a directory: /{os.fsdecode(path)}")
            self._made.add(path)
            entry = self._header(path + b"/", 0o755, 0)
            entry.type = headers.DIRECTORY
            self._writer.add(entry)
            self.entries += 1

    def _header(self, name: bytes, mode: int, size: int) -> headers.Entry:
        uid, gid = self._owner
        return headers.Entry(
            name, mode=mode, uid=uid, gid=gid, size=size,
            mtime=self._args["now"] if self._mtime is None else self._mtime,
        )  # fmt: skip

    def _resolve(self, path: bytes, *, last: bool = True) -> bytes:
        return resolve(self._target, path, last=last, check=self._check)

    def _is_directory(self, path: bytes) -> bool:
        if self._check is not None and path:
            self._check(path)
        try:
            return stat.S_ISDIR(paths.status(self._target, path or b".").st_mode)
        except OSError:
            return False


def _owner(text: str, target: int) -> tuple[int, int]:
    """``user[:group]`` by the target's own databases. Raises Invalid for unknown names."""
    if not text:
        return 0, 0
    user, colon, group = text.partition(":")
    if not user:
        raise Invalid(f"invalid chown string: '{text}' (USER[:GROUP])")
    uid, own = _identity(target, "etc/passwd", user)
    return uid, _identity(target, "etc/group", group)[0] if colon and group else own


def _identity(target: int, database: str, name: str) -> tuple[int, int]:
    """The number of a name, and a user's own group."""
    if name.isascii() and name.isdigit():
        if int(name) >= 1 << 31:
            raise Invalid(f"uids and gids must be in range 0-{(1 << 31) - 1}: {name}")
        return int(name), int(name)
    try:
        rows = paths.read_file(target, database).decode(errors="replace").splitlines()
    except OSError:
        rows = []
    for row in rows:
        fields = row.split(":")
        if len(fields) > 3 and fields[0] == name and fields[2].isdigit():
            return int(fields[2]), int(fields[3]) if fields[3].isdigit() else int(fields[2])
    raise Invalid(f"unable to convert uid/gid chown string to host mapping: can't find {name!r}")
