"""Help for filesystem backends that keep their snapshots in directories; none of it is required.

:class:`SnapshotTable` remembers snapshots on disk. :class:`TableBackend` has the hooks that ask
nothing but the table. The rest is single functions.
"""

from lading.snapshots.backend import TableBackend
from lading.snapshots.labels import BASE, INODES, PATH, SIZE, limit, refuse_labels
from lading.snapshots.options import read_options
from lading.snapshots.table import Row, SnapshotTable, check_name, is_name, parents_first
from lading.snapshots.trees import inherit_root, take_root, tree_usage

__all__ = [
    "BASE",
    "INODES",
    "PATH",
    "SIZE",
    "Row",
    "SnapshotTable",
    "TableBackend",
    "check_name",
    "inherit_root",
    "is_name",
    "limit",
    "parents_first",
    "read_options",
    "refuse_labels",
    "take_root",
    "tree_usage",
]
