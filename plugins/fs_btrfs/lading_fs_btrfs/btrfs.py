"""The backend object."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, Usage
from lading.snapshots import SIZE, Row, TableBackend, limit, refuse_labels
from lading_fs_btrfs import changes, subvolumes


class Btrfs(TableBackend):
    """Snapshots as subvolumes."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"quota-size", "changes", "idmap"})

    def __init__(self, context: Context) -> None:
        super().__init__(context, _destroy)

    @hookimpl
    def probe(self) -> Probe:
        """The data directory lies on btrfs, and subvolumes can be made there."""
        if not subvolumes.on_btrfs(self.data):
            return Probe(
                usable=False,
                reason=f"{self.data} is not on a btrfs filesystem",
                remedy="put data-root on btrfs, or mount one there",
            )
        place = self.data / f"probe-{os.getpid()}"
        try:
            subvolumes.create(place)
            subvolumes.destroy(place)
        except OSError as error:
            return Probe(
                usable=False,
                reason=f"no subvolumes can be made and removed: {error}",
                remedy="run as root, or mount with user_subvol_rm_allowed",
            )
        return Probe(usable=True, version=os.uname().release)

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make a subvolume: an empty one, or a snapshot of the parent's."""
        refuse_labels(self.name, labels, SIZE)
        size = limit(labels, SIZE)

        def build(directory: Path, base: Path | None) -> None:
            if base is None:
                subvolumes.create(directory / "fs")
                (directory / "fs").chmod(0o755)
            else:
                subvolumes.snapshot(base / "fs", directory / "fs")
            if size:
                subvolumes.limit(directory / "fs", size)

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self.recipe(self.table.get(key))

    @hookimpl
    def commit(self, key: str, name: str) -> None:
        """Sync, change the kind, and protect the subvolume."""
        row = self.table.get(key)
        self.table.commit(key, name)
        # After the table: an active snapshot that a crash has left must be writable.
        subvolumes.set_read_only(row.directory / "fs", read_only=True)

    @hookimpl
    def usage(self, key: str) -> Usage:
        """Measure what differs from the parent; changed files count whole."""
        top, parent = self._tops(key)
        if top is None:
            return Usage(0, 0)
        found = changes.changed_inodes(top, parent)
        return Usage(sum(inode.size for inode in found), len(found))

    @hookimpl
    def changed_paths(self, key: str) -> Iterator[bytes]:
        """Ask the filesystem itself."""
        top, parent = self._tops(key)
        return iter(changes.changed_paths(top, parent) if top else ())

    def _tops(self, key: str) -> tuple[Path | None, Path | None]:
        """The subvolumes of a snapshot and of its parent; a view changes nothing."""
        row = self.table.get(key)
        if row.snapshot.kind is Kind.VIEW:
            return None, None
        parent = row.snapshot.parent
        return row.directory / "fs", self.table.get(parent).directory / "fs" if parent else None

    def recipe(self, row: Row) -> Sequence[Mount]:
        """The subvolume, or the parent's read-only."""
        return self.whole_tree(row)


def _destroy(directory: Path) -> None:
    """Remove a snapshot's directory with the subvolume in it."""
    top = directory / "fs"
    if top.exists() and subvolumes.is_subvolume(top):
        subvolumes.destroy(top)
    shutil.rmtree(directory)
