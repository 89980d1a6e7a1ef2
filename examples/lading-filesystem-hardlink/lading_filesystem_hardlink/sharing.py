"""Making equal files of two trees one file."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def share(base: Path, top: Path) -> None:
    """Replace each file of ``top`` that equals the one of that name in ``base`` by a link to it.

    Two names of ``top`` never become one file by this: then a write through one of them, in a
    copy of the tree, would change the other.
    """
    taken: set[int] = set()
    for theirs, ours in _pairs(base, top):
        old, new = os.lstat(theirs), os.lstat(ours)
        if new.st_nlink > 1 or old.st_ino in taken or not _equal(theirs, old, ours, new):
            continue
        taken.add(old.st_ino)
        _replace(theirs, ours)


def shared(base: Path, top: Path) -> Iterator[os.stat_result]:
    """The files of ``top`` that are those of ``base``."""
    for theirs, ours in _pairs(base, top):
        old, new = os.lstat(theirs), os.lstat(ours)
        if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino):
            yield new


def _pairs(base: Path, top: Path) -> Iterator[tuple[str, str]]:
    """Paths of regular files that both trees have."""
    for at, _, names in os.walk(top):
        other = os.path.join(base, os.path.relpath(at, top))
        for name in names:
            theirs, ours = os.path.join(other, name), os.path.join(at, name)
            if _is_file(ours) and _is_file(theirs):
                yield theirs, ours


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _equal(theirs: str, old: os.stat_result, ours: str, new: os.stat_result) -> bool:
    """Whether nobody could tell the two apart: all metadata first, then the content."""
    members = ("st_size", "st_mode", "st_uid", "st_gid", "st_mtime_ns")
    if any(getattr(old, name) != getattr(new, name) for name in members):
        return False
    return _attributes(theirs) == _attributes(ours) and filecmp.cmp(theirs, ours, shallow=False)


def _attributes(path: str) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _replace(theirs: str, ours: str) -> None:
    """Put a link in the place of a file; its directory keeps its times."""
    above = os.path.dirname(ours)
    times = os.stat(above)
    aside = os.path.join(above, f".share-{os.getpid()}")
    os.link(theirs, aside)
    os.replace(aside, ours)
    os.utime(above, ns=(times.st_atime_ns, times.st_mtime_ns))
