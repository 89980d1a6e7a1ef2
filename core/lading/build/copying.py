"""The layer of COPY, ADD and WORKDIR, written straight from the source without a container.

This runs as a task, in a root that shows just the two trees: the target, whose links decide where
files go, and the source. Every path is resolved inside its own tree.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from lading.archive import headers, pack, tasks
from lading.errors import Invalid, NotFound
from lading.linux import paths

_TARGET, _SOURCE = b"/lower", b"/upper"
_MOST_LINKS = 40


def copy(args: Mapping[str, Any], fds: Sequence[int]) -> dict[str, Any]:
    """Write the layer to a descriptor; its digest, length, sizes.

    With ``key`` times count as zero, so that the digest tells only what is copied.
    """
    tasks._enter_both(args)
    digest = hashlib.sha256()
    writer = pack.Writer(fds[0], digest)
    with (
        paths.opened_root(_TARGET.decode()) as target,
        paths.opened_root(_SOURCE.decode()) as source,
    ):
        work = _Copy(args, writer, target, source)
        work.run()
    writer.close()
    return {
        "digest": f"sha256:{digest.hexdigest()}",
        "length": writer.total,
        "size": work.size,
        "entries": work.entries,
    }


class _Copy:
    def __init__(
        self, args: Mapping[str, Any], writer: pack.Writer, target: int, source: int
    ) -> None:
        self._args, self._writer = args, writer
        self._target, self._source = target, source
        self._made: set[bytes] = set()
        self._owner = _owner(args["owner"], target)
        self._mtime: int | None = 0 if args["key"] else args["mtime"]
        self._excluded = [_expression(p.strip("/")) for p in args["exclude"]]
        self.size = self.entries = 0

    def run(self) -> None:
        """Copy everything that was asked for."""
        dest = os.fsencode(self._args["dest"])
        place = _resolve(self._target, dest)
        files = self._args["files"]
        found = [f for pattern in self._args["sources"] for f in self._matching(pattern)]
        if not found and not files:
            self._directory(place)
            return
        into = dest.endswith(b"/") or self._args["parents"]
        if len(found) + len(files) > 1 and not into:
            raise Invalid(
                "When using COPY with more than one source file, the destination must be a "
                "directory and end with a /"
            )
        into = into or self._is_directory(place)
        for path in found:
            self._one(path, place, into=into)
        for name, content in files:
            where = posixpath.join(place, os.fsencode(name)) if into else place
            self._inline(_resolve(self._target, where), content.encode())

    def _matching(self, pattern: str) -> list[bytes]:
        """Paths in the source, without links, that a source argument names."""
        parts = [p for p in pattern.split("/") if p not in ("", ".")]
        if ".." in parts and posixpath.normpath("/".join(parts)).startswith(".."):
            raise Invalid(f"forbidden path outside the build context: {pattern} ()")
        found = [b""]
        for part in posixpath.normpath("/".join(parts)).split("/") if parts else []:
            if any(c in part for c in "*?["):
                expression = _expression(part)
                found = [
                    posixpath.join(above, name)
                    for above in found
                    for name in self._names(above)
                    if expression.fullmatch(os.fsdecode(name))
                ]
            else:
                found = [posixpath.join(above, os.fsencode(part)) for above in found]
        found = [p for p in found if paths.exists(self._source, p or b".")]
        if not found:
            raise NotFound(
                "file not found in build context or excluded by .dockerignore: "
                f"stat {pattern}: file does not exist"
            )
        return found

    def _names(self, above: bytes) -> list[bytes]:
        real = _resolve(self._source, above)
        place = _SOURCE + b"/" + real
        return sorted(os.listdir(place)) if os.path.isdir(place) else []

    def _one(self, path: bytes, place: bytes, *, into: bool) -> None:
        real = _resolve(self._source, path)
        top = _SOURCE + b"/" + real
        status = os.lstat(top)
        if self._args["parents"]:
            above = path if stat.S_ISDIR(status.st_mode) else posixpath.dirname(path)
            place = _resolve(self._target, posixpath.join(place, above))
        if not stat.S_ISDIR(status.st_mode):
            where = posixpath.join(place, posixpath.basename(path)) if into else place
            if not self._skipped(posixpath.basename(path)):
                self._entry(top, _resolve(self._target, where, last=False), status)
            return
        self._directory(place)
        for relative, inner in pack.walk(top):
            if self._skipped(relative):
                continue
            where = posixpath.join(place, relative)
            if stat.S_ISDIR(inner.st_mode):
                where = _resolve(self._target, where)
            else:
                above = _resolve(self._target, posixpath.dirname(where))
                where = posixpath.join(above, posixpath.basename(where))
            self._entry(top + b"/" + relative, where, inner)

    def _skipped(self, relative: bytes) -> bool:
        parts = os.fsdecode(relative).split("/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        return any(e.fullmatch(p) for e in self._excluded for p in prefixes)

    def _entry(self, path: bytes, where: bytes, status: os.stat_result) -> None:
        directory = stat.S_ISDIR(status.st_mode)
        if not directory and self._is_directory(where):
            raise Invalid(f"cannot copy to directory: {os.fsdecode(where)}")
        self._directory(posixpath.dirname(where))
        if directory:
            if where in self._made:
                return
            self._made.add(where)
        mode = status.st_mode
        if self._args["chmod"] is not None and not stat.S_ISLNK(mode):
            mode = stat.S_IFMT(mode) | self._args["chmod"]
        uid, gid = (status.st_uid, status.st_gid) if self._args["keep"] else self._owner
        mtime = status.st_mtime_ns if self._mtime is None else self._mtime
        shown = os.stat_result(
            (
                mode,
                status.st_ino,
                status.st_dev,
                status.st_nlink,
                uid,
                gid,
                status.st_size,
                0,
                0,
                0,
            ),
            {"st_mtime_ns": mtime, "st_rdev": status.st_rdev},
        )
        self._writer.add_path(path, where, shown)
        self.entries += 1
        self.size += status.st_size if stat.S_ISREG(mode) else 0

    def _inline(self, where: bytes, content: bytes) -> None:
        self._directory(posixpath.dirname(where))
        chmod = self._args["chmod"]
        self._writer.add(self._header(where, chmod if chmod is not None else 0o644, len(content)),
                         content)  # fmt: skip
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

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(paths.status(self._target, path or b".").st_mode)
        except OSError:
            return False


def _resolve(root: int, path: bytes, *, last: bool = True) -> bytes:
    """A path without links and dots, relative to the root; ``last``: its last part is followed."""
    todo = [p for p in path.split(b"/") if p not in (b"", b".")]
    done: list[bytes] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == b"..":
            done = done[:-1]
            continue
        here = b"/".join([*done, part])
        try:
            status = paths.status(root, here, follow=False)
        except OSError:
            status = None
        if status is None or not stat.S_ISLNK(status.st_mode) or not (todo or last):
            done.append(part)
            continue
        if (links := links + 1) > _MOST_LINKS:
            raise Invalid(f"too many symbolic links: {os.fsdecode(path)}")
        above, name = paths.open_parent(root, here)
        try:
            target = os.readlink(name, dir_fd=above)
        finally:
            os.close(above)
        if target.startswith(b"/"):
            done = []
        todo = [p for p in target.split(b"/") if p not in (b"", b".")] + todo
    return b"/".join(done)


def _expression(pattern: str) -> re.Pattern[str]:
    """Go's filepath.Match, with ``**`` for any directories."""
    parts = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece)
        if known is not None:
            parts.append(known)
        elif piece.startswith("[") and piece.endswith("]"):
            parts.append(fnmatch.translate(piece.replace("[^", "[!"))[4:-3])
        else:
            parts.append(re.escape(re.sub(r"\\(.)", r"\1", piece)))
    return re.compile("".join(parts), re.DOTALL)


def _owner(text: str, target: int) -> tuple[int, int]:
    """``user[:group]`` by the target's own databases. Raises Invalid for unknown names."""
    if not text:
        return 0, 0
    user, colon, group = text.partition(":")
    uid = _identity(target, "etc/passwd", user)
    return uid, _identity(target, "etc/group", group) if colon and group else uid


def _identity(target: int, database: str, name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        rows = paths.read_file(target, database).decode(errors="replace").splitlines()
    except OSError:
        rows = []
    for row in rows:
        fields = row.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise Invalid(f"unable to convert uid/gid chown string to host mapping: can't find {name!r}")
