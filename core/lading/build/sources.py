"""What COPY and ADD name in a tree, and a digest of it that tells contents, not times.

The tree is the build context or an image; nobody else writes in it. Every name is resolved inside.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lading.archive import pack
from lading.archive.tasks import INIT
from lading.errors import Invalid, NotFound
from lading.linux import paths
from lading.model.dockerignore import Ignore

_MOST_LINKS = 40
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to copy: ``relative`` to the source ("" for a directory itself), ``real`` where it
    is in this process's view, b"" for what is held in memory."""

    relative: bytes
    real: bytes
    status: os.stat_result


class Ambiguous(Exception):
    """What is at a place may be the init layer's doing: the image alone has to be looked at."""


#: A look at a path, relative and without links, that raises Ambiguous.
Check = Callable[[bytes], None]


class InitLayer:
    """Tells which places of a root at ``top`` may look otherwise in the image itself."""

    _PLACES = frozenset(os.fsencode(path) for path, _ in INIT)

    def __init__(self, top: bytes) -> None:
        self._top = top
        self._known: set[bytes] = set()

    def check(self, path: bytes) -> None:
        """Raise Ambiguous for a path that is one of them, or lies below or above."""
        parts = path.split(b"/")
        for end in range(1, min(len(parts), 2) + 1):
            here = b"/".join(parts[:end])
            if here in self._PLACES:
                raise Ambiguous
            if here not in self._known and end == 1:
                self._above(here)

    def _above(self, here: bytes) -> None:
        """A directory that has more than the init layer's places was there before."""
        own = {p.rpartition(b"/")[2] for p in self._PLACES if p.startswith(here + b"/")}
        if own:
            try:
                inside = set(os.listdir(self._top + b"/" + here))
            except OSError:
                inside = set()
            if inside <= own:
                raise Ambiguous
        self._known.add(here)

    def check_whole(self, path: bytes) -> None:
        """Raise Ambiguous if one of them lies below a path."""
        self.check(path)
        if not path or any(place.startswith(path + b"/") for place in self._PLACES):
            raise Ambiguous


#: Of the context; who looks elsewhere says so.
MISSING = "file not found in build context or excluded by .dockerignore"


class Sources:
    """Selects in the tree that is seen at ``top`` and open as ``root``."""

    def __init__(
        self, top: bytes, root: int, exclude: Sequence[str], init: InitLayer | None = None
    ) -> None:
        self._top, self._root, self._init = top, root, init
        self._excluded = Ignore(exclude) if exclude else None

    def matching(self, pattern: str, *, deep: bool = False) -> list[bytes]:
        """The paths, sorted, that a source argument names; ``deep``: ``**`` stands for directories.

        Raises Invalid, NotFound.
        """
        parts = [p for p in pattern.split("/") if p not in ("", ".")]
        if ".." in parts and posixpath.normpath("/".join(parts)).startswith(".."):
            raise Invalid(f"forbidden path outside the build context: {pattern} ()")
        found = [b""]
        for part in posixpath.normpath("/".join(parts)).split("/") if parts else []:
            if deep and part == "**":
                found = [inner for above in found for inner in self._directories(above)]
            elif any(c in part for c in "*?[\\"):
                wanted = expression(part)
                found = [
                    posixpath.join(above, name)
                    for above in found
                    for name in self._names(above)
                    if wanted.fullmatch(os.fsdecode(name))
                ]
            else:
                found = [posixpath.join(above, os.fsencode(part)) for above in found]
        found = [p for p in found if self._exists(p)]
        if not found:
            raise NotFound(f"{MISSING}: stat {pattern}: file does not exist")
        return found

    def _exists(self, path: bytes) -> bool:
        return paths.exists(self._root, path or b".")

    def _names(self, above: bytes) -> list[bytes]:
        real = self._resolve(above)
        if self._init is not None:
            self._init.check_whole(real)
        place = self._top + b"/" + real
        return sorted(os.listdir(place)) if os.path.isdir(place) else []

    def _directories(self, above: bytes) -> list[bytes]:
        """A directory, and all below it."""
        real = self._resolve(above)
        if self._init is not None:
            self._init.check_whole(real)
        top = self._top + b"/" + real
        if not os.path.isdir(top):
            return []
        below = [
            posixpath.join(above, relative)
            for relative, status in pack.walk(top)
            if stat.S_ISDIR(status.st_mode)
        ]
        return [above, *below]

    def entries(self, path: bytes) -> Iterator[Entry]:
        """A file by its name, or a directory and what is in it, parents first."""
        real = self._resolve(path)
        if self._init is not None:
            self._init.check_whole(real)
        top = self._top + b"/" + real
        status = os.lstat(top)
        if not stat.S_ISDIR(status.st_mode):
            name = posixpath.basename(path)
            if not self._skipped(name):
                yield Entry(name, top, status)
            return
        yield Entry(b"", top, status)
        for relative, inner in pack.walk(top):
            if not self._skipped(relative):
                yield Entry(relative, top + b"/" + relative, inner)

    def _resolve(self, path: bytes) -> bytes:
        return resolve(self._root, path, check=self._init.check if self._init else None)

    def _skipped(self, relative: bytes) -> bool:
        return self._excluded is not None and self._excluded.matches(os.fsdecode(relative))


def shown_path(path: bytes, pattern: str) -> bytes:
    """What ``--parents`` keeps of a path: all, or what is behind ``/./`` in its pattern."""
    base, pivot, _ = pattern.partition("/./")
    if not pivot:
        return path
    count = len([part for part in base.split("/") if part not in ("", ".")])
    return b"/".join(path.split(b"/")[count:])


class Content:
    """The digest of what an instruction takes: names, kinds, modes, contents, attributes.

    ``owners``: whose the files are counts as well.
    """

    def __init__(self, *, owners: bool = False) -> None:
        self._hash, self._owners = hashlib.sha256(), owners
        self._kinds: set[str] = set()
        self._sources = 0

    def begin(self, shown: bytes) -> None:
        """Another source; ``shown`` is what its name adds to the place, if anything."""
        self._sources += 1
        self._hash.update(b"source\0" + shown + b"\0")

    def add(self, entry: Entry, digest: bytes) -> None:
        """An entry; ``digest`` is the SHA-256 of a regular file's content."""
        status, kind = entry.status, stat.S_IFMT(entry.status.st_mode)
        self._kinds.add("dir" if kind == stat.S_IFDIR else "file")
        row = b"%b\0%o\0" % (entry.relative, 0 if not entry.relative else status.st_mode)
        if kind == stat.S_IFLNK:
            row += os.readlink(entry.real)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            row += b"%d" % status.st_rdev
        if self._owners:
            row += b"\0%d:%d" % (status.st_uid, status.st_gid)
        for name, value in self._attributes(entry):
            row += b"\0" + name.encode() + b"=" + value.hex().encode()
        self._hash.update(row + b"\0" + digest.hex().encode() + b"\n")

    def _attributes(self, entry: Entry) -> Iterable[tuple[str, bytes]]:
        return pack.attributes(entry.real).items() if entry.relative and entry.real else ()

    def document(self, name: str, content: str) -> None:
        """A document of the Dockerfile."""
        self._sources += 1
        self._kinds.add("file")
        inner = hashlib.sha256(content.encode()).hexdigest()
        self._hash.update(f"document\0{name}\0{inner}\n".encode())

    def shown(self) -> str:
        """The digest with what it is of, as Docker's history has it: file, dir or multi."""
        kind = "multi" if self._sources != 1 else "dir" if "dir" in self._kinds else "file"
        return f"{kind}:{self._hash.hexdigest()}"


class Digests:
    """SHA-256 of regular files by inode number: those known in advance, others on demand."""

    def __init__(self, known: Mapping[int, bytes] | None = None) -> None:
        self._known = dict(known or {})

    def of(self, entry: Entry) -> bytes:
        """The digest of a regular file's content, b"" for anything else."""
        if not stat.S_ISREG(entry.status.st_mode):
            return b""
        found = self._known.get(entry.status.st_ino)
        if found is None:
            found = self._known[entry.status.st_ino] = _read(entry.real)
        return found


def content_of(
    sources: Sources,
    patterns: Sequence[str],
    documents: Sequence[Sequence[str]],
    digests: Digests,
    *,
    parents: bool = False,
    owners: bool = False,
) -> str:
    """The digest of everything that an instruction takes."""
    content = Content(owners=owners)
    for pattern in patterns:
        for path in sources.matching(pattern, deep=parents):
            content.begin(shown_path(path, pattern) if parents else b"")
            for entry in sources.entries(path):
                content.add(entry, digests.of(entry))
    for name, text in documents:
        content.document(name, text)
    return content.shown()


def _read(path: bytes) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.digest()


def resolve(root: int, path: bytes, *, last: bool = True, check: Check | None = None) -> bytes:
    """A path without links and dots, relative to the root; ``last``: its last part is followed.

    ``check`` is shown each path on the way.
    """
    todo = [p for p in path.split(b"/") if p not in (b"", b".")]
    done: list[bytes] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == b"..":
            done = done[:-1]
            continue
        here = b"/".join([*done, part])
        if check is not None:
            check(here)
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


def expression(pattern: str) -> re.Pattern[str]:
    """Go's filepath.Match, with ``**`` for any directories."""
    parts = []
    for piece in re.split(r"(\\.|\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern, flags=re.DOTALL):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece)
        if known is not None:
            parts.append(known)
        elif piece.startswith("[") and piece.endswith("]"):
            parts.append(fnmatch.translate(piece.replace("[^", "[!"))[4:-3])
        else:
            parts.append(re.escape(piece[1:] if piece.startswith("\\") else piece))
    return re.compile("".join(parts), re.DOTALL)


def escaped(name: str) -> str:
    """The pattern that only this name matches."""
    return re.sub(r"([*?\[\\])", r"\\\1", name)
