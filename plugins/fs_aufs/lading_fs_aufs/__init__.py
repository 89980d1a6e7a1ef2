"""Filesystem backend on AUFS (out of the kernel's tree; aufs.5 and its whiteout description).

One directory per snapshot is a branch that holds what it changes; a recipe stacks them, and where
the list is too long for one mount(2), appends the rest by remounts::

    <data>/snapshots/<n>/meta.json
                         fs/        the branch: deletions are files ``.wh.NAME``
                         whole/     all that this snapshot shows, where chains are long
    <run>/*.xino                    AUFS's tables of inode numbers, without a name while in use

AUFS takes 127 branches where it was built as distributions do (``CONFIG_AUFS_BRANCH_MAX_127``);
of longer chains the lower hundreds are merged into one branch of hard links.
"""

from lading_fs_aufs.aufs import Aufs

__all__ = ["Aufs"]
