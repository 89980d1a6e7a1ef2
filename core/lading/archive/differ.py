"""What a tree changes against another: as a list, and as an OCI layer.

Two ways: :func:`compare` walks both trees, and serves every backend; :func:`in_layer` reads the
directory in which a backend keeps just the changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lading.archive.headers import Entry
from lading.archive.pack import Writer, walk
from lading.archive.unpack import OPAQUE, PREFIX
from lading.hooks.filesystem import Whiteouts

MODIFIED, ADDED, DELETED = 0, 1, 2

_OPAQUE_ATTRIBUTE = {
    Whiteouts.OVERLAY: "trusted.overlay.opaque",
    Whiteouts.OVERLAY_USER: "user.overlay.opaque",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One path (relative) with its kind; ``opaque`` for a directory that hides the lower one."""

    path: bytes
    kind: int
    status: os.stat_result | None = None
    opaque: bool = False


class Names(dict[bytes, "Names"]):
    """Names in a directory that are to be looked at, with those in each."""


def names(paths: Iterable[bytes]) -> Names:
    """Paths as a tree of names."""
    found = Names()
    for path in paths:
        at = found
        for name in path.split(b"/") if path else ():
            at = at.setdefault(name, Names())
    return found


def compare(lower: bytes, upper: bytes, only: Names | None = None) -> Iterator[Difference]:
    """The differences of two whole trees, sorted, parents first; ``only`` at some paths.

    A directory counts as modified when its own metadata differ, or something in it does.
    """
    pending: list[Difference] = []
    for difference in _compare(lower, upper, b"", only):
        while pending and not difference.path.startswith(pending[-1].path + b"/"):
            pending.pop()
        if difference.kind == MODIFIED and difference.opaque:
            # Only a candidate: it counts once something below it does.
            pending.append(Difference(difference.path, MODIFIED, difference.status))
            continue
        yield from pending
        pending.clear()
        yield difference


def _compare(lower: bytes, upper: bytes, at: bytes, only: Names | None) -> Iterator[Difference]:
    prefix = at + b"/" if at else b""
    wanted: Iterable[bytes] | None = only
    if wanted is None:
        wanted = {*os.listdir(lower + b"/" + at), *os.listdir(upper + b"/" + at)}
    for name in sorted(wanted):
        path = prefix + name
        old, status = _status(lower + b"/" + path), _status(upper + b"/" + path)
        if status is None:
            if old is not None:
                yield Difference(path, DELETED)
            continue
        if old is None:
            yield from _all_new(upper, path, status)
            continue
        both = stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(status.st_mode)
        same = _same(lower + b"/" + path, old, upper + b"/" + path, status)
        if both:
            yield Difference(path, MODIFIED, status, opaque=same)
            yield from _compare(lower, upper, path, only[name] if only is not None else None)
        elif not same:
            yield Difference(path, MODIFIED, status)
            if stat.S_ISDIR(status.st_mode):
                for inside, found in walk(upper + b"/" + path):
                    yield Difference(path + b"/" + inside, ADDED, found)


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _all_new(upper: bytes, path: bytes, status: os.stat_result) -> Iterator[Difference]:
    yield Difference(path, ADDED, status)
    if stat.S_ISDIR(status.st_mode):
        for inside, found in walk(upper + b"/" + path):
            yield Difference(path + b"/" + inside, ADDED, found)


def _same(old: bytes, before: os.stat_result, new: bytes, after: os.stat_result) -> bool:
    """Whether two entries agree in everything that a layer holds."""
    if (before.st_mode, before.st_uid, before.st_gid) != (
        after.st_mode,
        after.st_uid,
        after.st_gid,
    ):
        return False
    kind = stat.S_IFMT(after.st_mode)
    if kind == stat.S_IFLNK:
        return os.readlink(old) == os.readlink(new)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        return before.st_rdev == after.st_rdev
    if before.st_mtime_ns != after.st_mtime_ns:
        return False
    if kind == stat.S_IFREG and before.st_size != after.st_size:
        return False
    return attributes(old) == attributes(new)


def attributes(path: bytes) -> dict[str, bytes]:
    """The extended attributes of a file that are its own."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if not name.startswith(("trusted.overlay.", "user.overlay."))
    }


def in_layer(layer: bytes, form: Whiteouts, lower: bytes) -> Iterator[Difference]:
    """The differences that a layer directory holds; ``lower`` shows the parent, to tell new
    from modified ("" when there is none)."""
    for path, status in walk(layer):
        above, _, name = path.rpartition(b"/")
        if form is Whiteouts.AUFS and b"/" + PREFIX in b"/" + above:
            # In a directory that AUFS keeps for itself, or has not finished to remove.
            continue
        if form is Whiteouts.AUFS and name.startswith(PREFIX):
            if not name.startswith(b".wh..wh.") and not stat.S_ISDIR(status.st_mode):
                victim = (above + b"/" if above else b"") + name[len(PREFIX) :]
                yield Difference(victim, DELETED)
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 and form is not Whiteouts.AUFS:
            yield Difference(path, DELETED)
            continue
        opaque = stat.S_ISDIR(status.st_mode) and _is_opaque(layer + b"/" + path, form)
        if not lower or not os.path.lexists(lower + b"/" + path):
            yield Difference(path, ADDED, status, opaque)
            continue
        old = os.lstat(lower + b"/" + path)
        if stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(old.st_mode) and not opaque:
            same = _same(lower + b"/" + path, old, layer + b"/" + path, status)
            if same and not os.listdir(layer + b"/" + path):
                # Copied up, by chmod to the same mode for instance, and nothing came of it.
                continue
        yield Difference(path, MODIFIED, status, opaque)


def _is_opaque(path: bytes, form: Whiteouts) -> bool:
    if form is Whiteouts.AUFS:
        return os.path.lexists(path + b"/" + OPAQUE)
    try:
        return os.getxattr(path, _OPAQUE_ATTRIBUTE[form], follow_symlinks=False) == b"y"
    except OSError:
        return False


def write_layer(writer: Writer, upper: bytes, differences: Iterator[Difference]) -> None:
    """The differences as an OCI layer; ``upper`` is where their files are."""
    for difference in differences:
        above, _, name = difference.path.rpartition(b"/")
        prefix = above + b"/" if above else b""
        if difference.kind == DELETED:
            writer.add(Entry(prefix + PREFIX + name, mode=0))
            continue
        try:
            writer.add_path(upper + b"/" + difference.path, difference.path, difference.status)
        except FileNotFoundError:
            # Deleted since it was listed, by a container that was not paused.
            continue
        if difference.opaque and difference.kind == MODIFIED:
            writer.add(Entry(difference.path + b"/" + OPAQUE, mode=0))
