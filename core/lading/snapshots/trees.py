"""What several backends do with the directories of their snapshots."""

from __future__ import annotations

import os
from pathlib import Path


def tree_usage(top: Path) -> tuple[int, int]:
    """Bytes on disk and inodes of a tree, each inode once: for ``usage``."""
    seen: set[tuple[int, int]] = set()
    size = 0
    stack = [str(top)]
    while stack:
        at = stack.pop()
        try:
            entries = list(os.scandir(at))
            statuses = [entry.stat(follow_symlinks=False) for entry in entries]
        except FileNotFoundError:
            continue
        for entry, status in zip(entries, statuses, strict=True):
            if (key := (status.st_dev, status.st_ino)) not in seen:
                seen.add(key)
                size += status.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
    return size, len(seen)


def take_root(parent: Path, top: Path) -> None:
    """Give a layer's root directory the parent's mode and owner: what a stack of layers shows of
    its root directory are the uppermost one's."""
    status = parent.stat()
    os.chown(top, status.st_uid, status.st_gid)
    top.chmod(status.st_mode & 0o7777)


def inherit_root(parent: Path, top: Path) -> None:
    """The same, unless the layer has set its own."""
    own = top.stat()
    if (own.st_mode & 0o7777, own.st_uid, own.st_gid) == (0o755, 0, 0):
        take_root(parent, top)
