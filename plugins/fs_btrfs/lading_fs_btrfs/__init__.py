"""Filesystem backend on btrfs: a subvolume per snapshot, made and removed in constant time.

Stands on btrfs's ioctls (linux/btrfs.h; snapshots since Linux 2.6.33, read-only ones since 2.6.39,
quota groups since 3.6). The data directory must lie on btrfs.

::

    <data>/snapshots/<n>/meta.json
                         fs/        a subvolume; read-only once it is committed

A size limit (``--storage-opt size=``) is a quota group's: the first one switches the filesystem's
quota accounting on, which costs some speed and stays on.
"""

from lading_fs_btrfs.btrfs import Btrfs

__all__ = ["Btrfs"]
