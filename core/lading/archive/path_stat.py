"""A path's description, as ``HEAD /containers/X/archive`` gives it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from datetime import datetime, timedelta
from typing import Any

from lading.errors import Invalid, NotFound

#: Go's os.FileMode bits (io/fs), which the API's ``mode`` has.
_GO_BITS = (
    (stat.S_ISUID, 1 << 23),
    (stat.S_ISGID, 1 << 22),
    (stat.S_ISVTX, 1 << 20),
)
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}


def describe(path: str) -> tuple[dict[str, Any], bytes]:
    """A path's description, and the path without links above its last component.

    Raises NotFound, and Invalid for loops of links and for a file that is asked for as a directory.
    """
    absolute = posixpath.normpath("/" + path.lstrip("/"))
    # A dot at the end is the name: clients put what is below into a directory of another name.
    dot = path == "." or path.endswith("/.")
    name = "." if dot else posixpath.basename(absolute) or "/"
    place = os.fsencode(absolute)
    # A trailing slash or dot asks for what a link leads to.
    follow = path.endswith(("/", "/."))
    try:
        status = os.stat(place) if follow else os.lstat(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"Could not find the file {path} in container") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Invalid(f"too many symbolic links: {path}") from error
        raise
    if follow and not stat.S_ISDIR(status.st_mode):
        raise Invalid(f"not a directory: {path}")
    target = ""
    if follow:
        place = os.path.realpath(place)
    elif stat.S_ISLNK(status.st_mode):
        target = posixpath.normpath(
            posixpath.join(posixpath.dirname(absolute), os.readlink(absolute))
        )
    return {
        "name": name,
        "size": status.st_size,
        "mode": _go_mode(status.st_mode),
        "mtime": _rfc3339(status.st_mtime_ns),
        "link_target": target,
    }, place


def _go_mode(mode: int) -> int:
    found = stat.S_IMODE(mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _GO_BITS:
        if mode & bit:
            found |= go_bit
    return found


def _rfc3339(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    try:
        # Not strftime(3): it reads /etc/localtime, which here is the container's.
        moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    except OverflowError:
        return "0001-01-01T00:00:00Z"
    return moment.isoformat() + fraction + "Z"
