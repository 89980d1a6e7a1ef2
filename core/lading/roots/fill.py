"""Filling a new volume with what the image has at its place.

Runs as a task, on a root in which no process runs; names in it are still looked up below its
descriptor only, and no symbolic link of it is followed on the way down.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from lading.linux import paths
from lading.roots.mounted import mounted

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def fill(args: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Task: copy each ``source`` of the root into its ``target``, an empty host directory."""
    with mounted(args) as root:
        for volume in args["volumes"]:
            _fill(root, volume["source"], volume["target"])


def _fill(root: int, source: str, target: str) -> None:
    try:
        origin = paths.open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        goal = os.open(target, _DIRECTORY)
        try:
            _directory(origin, goal, {})
        finally:
            os.close(goal)
    finally:
        os.close(origin)


#: Where an inode with several names was copied to first: directory descriptor and name.
Links = dict[tuple[int, int], tuple[int, str]]


def _directory(origin: int, goal: int, links: Links) -> None:
    """Copy what is in one directory into another, then its own owner, mode and times."""
    for name in os.listdir(origin):
        _entry(name, origin, goal, links)
    _metadata(origin, goal)


def _entry(name: str, origin: int, goal: int, links: Links) -> None:
    status = os.stat(name, dir_fd=origin, follow_symlinks=False)
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        if first := links.get(key):
            os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=goal, follow_symlinks=False)
            return
        # The descriptor lives as long as this task, which is short.
        links[key] = (os.dup(goal), name)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=goal)
        below, copy = (
            os.open(name, _DIRECTORY, dir_fd=origin),
            os.open(name, _DIRECTORY, dir_fd=goal),
        )
        _directory(below, copy, links)
        os.close(below)
        os.close(copy)
    elif kind == stat.S_IFREG:
        _file(name, origin, goal)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=origin), name, dir_fd=goal)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=goal, follow_symlinks=False)
    elif kind != stat.S_IFSOCK:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=goal)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=goal, follow_symlinks=False)


def _file(name: str, origin: int, goal: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=origin)
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    copy = os.open(name, new, 0o600, dir_fd=goal)
    while os.sendfile(copy, source, None, _CHUNK):
        pass
    _metadata(source, copy)
    os.close(source)
    os.close(copy)


def _metadata(source: int, copy: int) -> None:
    status = os.fstat(source)
    os.fchown(copy, status.st_uid, status.st_gid)
    # After the owner: changing that clears set-user-ID.
    os.fchmod(copy, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        try:
            os.setxattr(copy, name, os.getxattr(source, name))
        except OSError:
            # The volume's filesystem may not hold what the image's does.
            continue
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
