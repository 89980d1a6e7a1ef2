"""One branch out of many, for stacks that are higher than AUFS takes.

Files of the branches are not copied but linked: branches of committed snapshots never change.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lading.linux import syscalls

#: What AUFS puts before the name of what is deleted, and the mark of a directory that hides the
#: lower ones (aufs.5, "Whiteout"). Other names that begin as the mark are AUFS's own.
_WHITEOUT, _OWN, _OPAQUE = ".wh.", ".wh..wh.", ".wh..wh..opq"


def merge(branches: Iterable[Path], target: Path) -> None:
    """Make ``target`` a directory with all that a stack of branches shows, the lowest first.

    It is whole and on disk, or absent.
    """
    made = target.with_name(f"{target.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for branch in branches:
        _add(branch, made)
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(descriptor)
    finally:
        os.close(descriptor)
    made.rename(target)


def _add(branch: Path, top: Path) -> None:
    """Lay a directory of a branch over what those below it show."""
    entries = list(os.scandir(branch))
    if any(entry.name == _OPAQUE for entry in entries):
        for entry in list(os.scandir(top)):
            _remove(Path(entry.path))
    for entry in entries:
        if entry.name.startswith(_WHITEOUT) and not entry.name.startswith(_OWN):
            _remove(top / entry.name.removeprefix(_WHITEOUT))
    for entry in entries:
        if entry.name.startswith(_WHITEOUT):
            continue
        place = top / entry.name
        if not entry.is_dir(follow_symlinks=False):
            _remove(place)
            os.link(entry.path, place, follow_symlinks=False)
            continue
        if place.is_symlink() or not place.is_dir():
            _remove(place)
            place.mkdir()
        _add(Path(entry.path), place)
    _copy_status(branch, top)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_status(source: Path, target: Path) -> None:
    """Give a directory the owner, mode, attributes and times of another."""
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    for name in set(os.listxattr(target)) - set(os.listxattr(source)):
        os.removexattr(target, name)
    shutil.copystat(source, target)
