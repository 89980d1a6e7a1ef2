"""Taking mounts of this namespace away again."""

from __future__ import annotations

import errno
import os
import re

from lading.linux import syscalls


def unmount_all(path: str | os.PathLike[str]) -> None:
    """Detach everything that is mounted at a path; nothing there is fine.

    To be called before a directory is removed with its content. ``os.path.ismount`` cannot tell:
    it does not see a bind mount of the same filesystem, and what is removed then is the source.
    """
    while True:
        try:
            syscalls.umount2(path, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def is_mounted(path: str | os.PathLike[str]) -> bool:
    """Whether something is mounted at a path."""
    wanted = os.fsencode(os.path.realpath(path))
    with open("/proc/self/mountinfo", "rb") as table:
        return any(_unescaped(line.split(b" ", 5)[4]) == wanted for line in table)


def _unescaped(name: bytes) -> bytes:
    """A name as proc(5) writes it, with octal escapes for blanks and backslashes."""
    if b"\\" not in name:
        return name
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), name)
