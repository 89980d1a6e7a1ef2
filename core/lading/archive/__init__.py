"""Archives in and out of roots: layers, differences, copies, exports.

Every operation runs as a task: a process of its own, in a mount namespace of its own, changed into
the root that it works on, so that no name in an archive or an image can lead anywhere else. Data
go through descriptors; nothing is held in memory.
"""

from lading.archive.archives import Applied, Archives, Bind, Change, Hint, Packed, PathStat, Root

__all__ = ["Applied", "Archives", "Bind", "Change", "Hint", "Packed", "PathStat", "Root"]
