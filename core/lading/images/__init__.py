"""Images: what containers are made from, by name and by content.

:class:`Images` is the whole face: look up, list, tag, remove, import, commit, save, load, and give
the snapshot on which a container's own is prepared. :class:`Transfers` moves them between here and
registries.
"""

from lading.images.images import Images
from lading.images.records import Deleted, HistoryLine, Image, Layer, NewLayer, PruneReport
from lading.images.removal import User
from lading.images.transfers import Transfers

__all__ = [
    "Deleted",
    "HistoryLine",
    "Image",
    "Images",
    "Layer",
    "NewLayer",
    "PruneReport",
    "Transfers",
    "User",
]
