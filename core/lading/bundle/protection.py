"""What a container may see but not change, or not see at all; and kernel parameters of its own."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence

from lading.bundle.config import Config
from lading.hooks import Mount
from lading.linux import mounts, paths, procfs, syscalls

_EMPTY = Mount("tmpfs", "tmpfs", ("ro", "nosuid", "nodev", "noexec", "nr_inodes=1", "size=4k"))


def protect(config: Config, root: int) -> None:
    """Read-only paths, masked paths, a read-only root; ``root`` is the root's descriptor."""
    for path in config.linux.get("readonlyPaths") or ():
        _if_there(root, path, _make_read_only)
    _mask(root, config.linux.get("maskedPaths") or ())
    if config.read_only:
        mounts.set_attributes(root, syscalls.MOUNT_ATTR_RDONLY)


def _if_there(root: int, path: str, act: Callable[[int], None]) -> None:
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        act(target)
    except OSError as error:
        raise OSError(error.errno, f"protect: {error.strerror}", path) from error
    finally:
        os.close(target)


def _make_read_only(target: int) -> None:
    tree = mounts.copy_tree(target, deep=True)
    mounts.set_attributes(tree, syscalls.MOUNT_ATTR_RDONLY, deep=True)
    mounts.attach(tree, target)


def _mask(root: int, masked: Sequence[str]) -> None:
    """Hide files behind the null device, directories behind one empty tmpfs."""
    if not masked:
        return
    null, empty = _verified_null(root), -1

    def hide(target: int) -> None:
        nonlocal empty
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            mounts.attach(mounts.copy_tree(null), target)
        elif empty >= 0:
            mounts.attach(mounts.copy_tree(empty), target)
        else:
            # Only what is attached can be copied (before kernel 6.15).
            empty = mounts.new_tree(_EMPTY)
            mounts.attach(os.dup(empty), target)

    try:
        for path in masked:
            _if_there(root, path, hide)
    finally:
        os.close(null)
        if empty >= 0:
            os.close(empty)


def _verified_null(root: int) -> int:
    """The container's /dev/null, surely that: a swapped one would be shown (CVE-2025-31133)."""
    descriptor = paths.open_in_root(root, "dev/null", os.O_PATH | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not the null device", "/dev/null")
    return descriptor


def write_sysctls(values: Mapping[str, str], proc: int) -> None:
    """Set kernel parameters of this process's namespaces; ``proc`` is the host's procfs."""
    if not values:
        return
    top = os.open("sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        for name, value in values.items():
            # Slashes may stand for dots, so that an interface's name can have some.
            path = name if "/" in name else name.replace(".", "/")
            try:
                procfs.write(top, path, value)
            except OSError as error:
                text = f'sysctl "{name}" = "{value}": {os.strerror(error.errno or 0)}'
                raise OSError(error.errno, text) from error
    finally:
        os.close(top)
