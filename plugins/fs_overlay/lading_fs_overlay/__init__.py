"""Filesystem backend on overlayfs (kernel 4.0; Documentation/filesystems/overlayfs.rst).

One directory per snapshot holds what it changes; a recipe stacks them::

    <data>/snapshots/<n>/meta.json
                         fs/       the changes: lowerdir of children, upperdir while active
                         work/     overlayfs's own, while active

Options (``[filesystem.overlay]``, or ``--storage-opt overlay.KEY=VALUE``):

``volatile = true``   do not sync: fast, and lost with the host's power (overlayfs 5.10)
``userxattr = true``  keep overlayfs's marks in ``user.overlay.``, for hosts without ``trusted.``
"""

from lading_fs_overlay.overlay import Overlay

__all__ = ["Overlay"]
