"""What is left to settle of a layer that was unpacked before its parent.

Directories that it uses without an entry for them take mode, owner and times from the parent, and
deletions of what the parent does not have vanish: the result is that of one layer after the other.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable


def adopt(lower: bytes, layer: bytes, paths: Iterable[bytes]) -> bool:
    """Give directories of a layer what the tree ``lower`` has at their places.

    ``paths`` are relative, parents first. What the tree does not have stays as it is. Returns False
    where it has something else than a directory: the layer's files belong elsewhere then.
    """
    directories = {b""}
    for path in paths:
        status = _status(lower, path, directories)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return False
        _copy(lower + b"/" + path, status, layer + b"/" + path)
    return True


def forget(lower: bytes, layer: bytes, whiteouts: Iterable[bytes]) -> None:
    """Remove marks of deletion where there is nothing to delete: in a directory that only the layer
    has overlayfs would list them."""
    directories = {b""}
    for path in whiteouts:
        if _status(lower, path, directories) is None:
            mark = layer + b"/" + path
            above = os.path.dirname(mark)
            status = os.lstat(above)
            os.unlink(mark)
            os.utime(above, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _status(top: bytes, path: bytes, directories: set[bytes]) -> os.stat_result | None:
    """lstat without following links anywhere; None where there is nothing.

    Something else than a directory further up counts as nothing: the layer has an entry there,
    which hides it. ``directories`` collects what is known to be one.
    """
    above = path.rpartition(b"/")[0]
    if above not in directories:
        status = _status(top, above, directories)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return None
    try:
        status = os.lstat(top + b"/" + path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        directories.add(path)
    return status


def _copy(source: bytes, status: os.stat_result, target: bytes) -> None:
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in _attributes(source):
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
                raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _attributes(path: bytes) -> list[str]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    # Marks of a union filesystem mean something in their own layer only.
    return [name for name in names if ".overlay." not in name]
