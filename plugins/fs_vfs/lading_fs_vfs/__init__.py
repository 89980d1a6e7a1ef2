"""Filesystem backend of plain directories: each snapshot is a whole copy of its parent.

It works on every filesystem, and is the reference that others are measured against. Where the host
can share blocks between files (FICLONE, ioctl_ficlonerange(2): btrfs, xfs with ``reflink=1``,
bcachefs) a copy takes no space until it is written to; elsewhere it takes all of it.

::

    <data>/snapshots/<n>/meta.json
                         fs/        the whole tree
"""

from lading_fs_vfs.vfs import Vfs

__all__ = ["Vfs"]
