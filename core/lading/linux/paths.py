"""Resolve paths inside a root that somebody else controls.

Most container escapes of the last ten years are path-resolution errors: a name from an image is
joined to a host path, and a symbolic link on the way leads out, or is swapped in between check and
use. All of Lading resolves such names here, by openat2(2) with ``RESOLVE_IN_ROOT``: absolute
paths, absolute links and ``..`` stay inside the root, and the result is a descriptor, not a name.
Where the kernel lacks the call (before 5.6, or a seccomp filter), :func:`_walk` does the same
component by component with ``O_PATH`` descriptors.

``root`` is always a descriptor of the root directory; paths may be relative or absolute.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from lading.linux import syscalls

Name = str | bytes

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
#: As many as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40


@contextmanager
def opened_root(path: str | os.PathLike[str]) -> Iterator[int]:
    """Open a directory as a root for the calls below."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_in_root(root: int, path: Name, flags: int, mode: int = 0, *, links: bool = True) -> int:
    """Open ``path`` inside ``root`` and return a descriptor, close-on-exec.

    Symbolic links are followed as seen from inside; with ``O_NOFOLLOW`` in ``flags`` the last one
    is not. Without ``links`` any of them is an error, ELOOP. Raises OSError as open(2), with the
    path.
    """
    resolve = _RESOLVE if links else _RESOLVE | syscalls.RESOLVE_NO_SYMLINKS
    for _ in range(8):
        try:
            return syscalls.openat2(root, path or b".", flags, mode, resolve)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                # Something was renamed on the way, so the kernel could not be sure: again.
                continue
            if error.errno in (errno.ENOSYS, errno.EPERM):
                break
            raise
    return _walk(root, path, flags, mode, _MOST_LINKS if links else 0)


def exists(root: int, path: Name) -> bool:
    """Whether ``path`` leads to something inside ``root``."""
    try:
        os.close(open_in_root(root, path, os.O_PATH))
    except OSError:
        return False
    return True


def status(root: int, path: Name, *, follow: bool = True) -> os.stat_result:
    """stat(2) or lstat(2) inside ``root``."""
    descriptor = open_in_root(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def read_file(root: int, path: Name, limit: int = 1 << 20) -> bytes:
    """The first ``limit`` bytes of a regular file inside ``root``.

    Raises OSError as open(2), and EINVAL for what is not a regular file (a FIFO would hang).
    """
    descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        parts, left = [], limit
        while left > 0 and (part := os.read(descriptor, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def open_parent(root: int, path: Name, *, make: bool = False) -> tuple[int, bytes]:
    """Open the directory that holds ``path`` and return it with the last component.

    The last component is not looked at. With ``make`` missing directories are made. Raises EINVAL
    for a path without a last component.
    """
    parts = _components(path)
    if not parts or parts[-1] == b"..":
        raise OSError(errno.EINVAL, "the path names no entry of a directory", os.fsdecode(path))
    above = b"/".join(parts[:-1])
    if make:
        return make_directories(root, above), parts[-1]
    return open_in_root(root, above, os.O_PATH | os.O_DIRECTORY), parts[-1]


def make_directories(
    root: int, path: Name, mode: int = 0o755, owner: tuple[int, int] | None = None
) -> int:
    """mkdir -p inside ``root``; returns an ``O_PATH`` descriptor of the directory.

    ``mode`` (the umask is ignored) and ``owner`` are for those that are made. Where a symbolic
    link leads to nothing, the directory is made where it leads. Raises ENOTDIR where something
    else is in the way.
    """
    current, links = os.dup(root), 0
    walked: list[bytes] = []
    todo = _components(path)
    try:
        while todo:
            part = todo.pop(0)
            below = -1
            try:
                name = b"/".join([*walked, part])
                below = open_in_root(root, name, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                if not _is_link(current, part):
                    below = _make_directory(current, part, mode, owner)
            if below < 0:
                links = _another_link(links, path)
                target = os.readlink(part, dir_fd=current)
                todo[:0] = _components(target)
                if not target.startswith(b"/"):
                    continue
                walked, below = [], os.dup(root)
            else:
                walked.append(part)
            os.close(current)
            current = below
    except BaseException:
        os.close(current)
        raise
    return current


def _make_directory(parent: int, name: bytes, mode: int, owner: tuple[int, int] | None) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        made = True
    except FileExistsError:
        made = False
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=parent)
    if made:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
    return descriptor


def make_file(root: int, path: Name, mode: int = 0o644) -> int:
    """Make sure that a file exists at ``path``, with its directories; returns an ``O_PATH`` one.

    What is there already, of whatever kind, is left alone and opened. Where a symbolic link leads
    to nothing, the file is made where it leads, inside the root.
    """
    links = 0
    while True:
        try:
            return open_in_root(root, path, os.O_PATH)
        except FileNotFoundError:
            parent, name = open_parent(root, path, make=True)
        try:
            if not _is_link(parent, name):
                return _make_file(parent, name, mode)
            links = _another_link(links, path)
            target = os.readlink(name, dir_fd=parent)
        finally:
            os.close(parent)
        above = b"" if target.startswith(b"/") else os.path.dirname(os.fsencode(path))
        path = above + b"/" + target


def _make_file(parent: int, name: bytes, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=parent)
    os.fchmod(descriptor, mode)
    os.close(descriptor)
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _another_link(links: int, path: Name, most: int = _MOST_LINKS) -> int:
    if links >= most:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
    return links + 1


def _components(path: Name) -> list[bytes]:
    return [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]


def _walk(root: int, path: Name, flags: int, mode: int, most_links: int) -> int:
    """What openat2 does, in user space: one ``O_PATH`` descriptor per component."""
    todo = _components(path)
    stack: list[int] = [os.dup(root)]
    links = 0
    try:
        while todo:
            part = todo.pop(0)
            if part == b"..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            if not todo and (flags & os.O_NOFOLLOW or not _is_link(stack[-1], part)):
                final = flags | os.O_NOFOLLOW | os.O_CLOEXEC
                return os.open(part, final, mode, dir_fd=stack[-1])
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
            if not stat.S_ISLNK(os.fstat(below).st_mode):
                stack.append(below)
                continue
            target = os.readlink(b"", dir_fd=below)
            os.close(below)
            links = _another_link(links, path, most_links)
            if target.startswith(b"/"):
                while len(stack) > 1:
                    os.close(stack.pop())
            todo[:0] = _components(target)
        if flags & os.O_PATH and not flags & os.O_DIRECTORY:
            return os.dup(stack[-1])
        return os.open(b".", flags | os.O_CLOEXEC, mode, dir_fd=stack[-1])
    finally:
        for descriptor in stack:
            os.close(descriptor)


def _is_link(directory: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
