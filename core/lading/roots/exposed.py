"""Showing a root at a place of the host, in the host's own mount namespace.

Two mounts of one filesystem: ``hidden``, writable, at a place that only root reaches, and the view
of it at ``target``, which nobody can write through. A container that starts while it is shown takes
its root from ``hidden``, since an overlay must not be mounted a second time on the same layer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lading.hooks.common import Mount
from lading.linux import mounts, syscalls

_VIEW = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


def expose(args: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Task: mount ``rootfs``, or a second mount namespace's root, at ``hidden`` and ``target``.

    The descriptors are the mount namespaces: the host's, and the container's if it runs. Without
    ``keep`` only ``target`` is left. Raises OSError; what was mounted until then stays.
    """
    recipe = [Mount(t, s, tuple(o), to) for t, s, o, to in args["rootfs"]]
    tree = -1
    if len(fds) > 1:
        syscalls.setns(fds[1], syscalls.CLONE_NEWNS)
        tree = syscalls.open_tree(syscalls.AT_FDCWD, "/", syscalls.OPEN_TREE_CLONE)
    syscalls.setns(fds[0], syscalls.CLONE_NEWNS)
    hidden, target = args["hidden"], args["target"]
    if tree >= 0:
        # The container's own mount may be a read-only one.
        mounts.set_attributes(tree, 0, syscalls.MOUNT_ATTR_RDONLY)
        mounts.attach(tree, hidden)
    else:
        mounts.mount_recipe(recipe, hidden)
    # Nobody else's namespaces get a copy that would keep the filesystem alive.
    syscalls.mount(None, hidden, None, mounts.MS_PRIVATE)
    top = os.open(hidden, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    deep = any(entry.target for entry in recipe)
    view = mounts.copy_tree(top, deep=deep)
    os.close(top)
    mounts.set_attributes(view, _VIEW, deep=deep)
    mounts.attach(view, target)
    if not args["keep"]:
        syscalls.umount2(hidden, syscalls.MNT_DETACH)
