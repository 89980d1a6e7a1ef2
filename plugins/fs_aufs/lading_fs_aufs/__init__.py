"""Filesystem backend on AUFS (out of the kernel's tree; aufs.5 and its whiteout description).

One directory per snapshot is a branch that holds what it changes; a recipe stacks them, and where
the list is too long for one mount(2), appends the rest by remounts::

    <data>/snapshots/<n>/meta.json
                         fs/        the branch: deletions are files ``.wh.NAME``
    <run>/aufs.xino                 AUFS's table of inode numbers

AUFS takes 127 branches where it was built as distributions do (``CONFIG_AUFS_BRANCH_MAX_127``).
"""

from lading_fs_aufs.aufs import Aufs

__all__ = ["Aufs"]
