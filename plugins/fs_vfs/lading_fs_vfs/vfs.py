"""The backend object."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.errors import NotFound, Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, Snapshot, Usage
from lading.snapshots import Row, SnapshotTable, tree_usage
from lading_fs_vfs.copying import copy_tree, reflinks

_LIMITS = ("lading.size", "lading.inodes", "lading.path")


class Vfs:
    """Snapshots as whole copies."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"idmap"})

    def __init__(self, context: Context) -> None:
        self.data = context.data
        self.table = SnapshotTable(context.data)

    @hookimpl
    def probe(self) -> Probe:
        """Usable everywhere; tells whether copies share their blocks."""
        with tempfile.TemporaryDirectory(dir=self.data) as place:
            shared = reflinks(place)
        warning = "every snapshot takes the space of a whole image here: no reflinks"
        return Probe(
            usable=True,
            version=os.uname().release,
            details={"Reflinks": str(shared).lower()},
            warnings=() if shared else (warning,),
        )

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Copy the parent."""
        if asked := [name for name in _LIMITS if name in labels]:
            raise Unsupported(
                f'the vfs backend does not know the label "{asked[0]}"',
                hint="use a backend that declares the capability",
            )

        def build(directory: Path, base: Path | None) -> None:
            (directory / "fs").mkdir(mode=0o755)
            (directory / "fs").chmod(0o755)
            if base is not None:
                copy_tree(base / "fs", directory / "fs")

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self._recipe(self.table.get(key))

    @hookimpl
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """A name for the parent's own directory; a view of nothing has an empty one."""
        self.table.add(key, parent, Kind.VIEW, labels, lambda made, _: (made / "fs").mkdir(0o755))
        return self._recipe(self.table.get(key))

    @hookimpl
    def commit(self, key: str, name: str) -> None:
        """Sync, and change the kind."""
        self.table.commit(key, name)

    @hookimpl
    def mounts(self, key: str) -> Sequence[Mount]:
        """The recipe again."""
        row = self.table.get(key)
        if row.snapshot.kind is Kind.COMMITTED:
            raise NotFound(f'snapshot "{key}" is committed: it is mounted through a view')
        return self._recipe(row)

    @hookimpl
    def stat(self, key: str) -> Snapshot:
        """One snapshot."""
        return self.table.get(key).snapshot

    @hookimpl
    def remove(self, key: str) -> None:
        """Remove the copy."""
        self.table.remove(key)

    @hookimpl
    def usage(self, key: str) -> Usage:
        """Measure the copy; blocks shared with others count."""
        return Usage(*tree_usage(self.table.get(key).directory / "fs"))

    @hookimpl
    def walk(self) -> Iterator[Snapshot]:
        """All snapshots."""
        return self.table.walk()

    def _recipe(self, row: Row) -> Sequence[Mount]:
        if row.snapshot.kind is Kind.VIEW and row.snapshot.parent:
            base = self.table.get(row.snapshot.parent)
            return [Mount("bind", str(base.directory / "fs"), ("rbind", "ro"))]
        access = "ro" if row.snapshot.kind is Kind.VIEW else "rw"
        return [Mount("bind", str(row.directory / "fs"), ("rbind", access))]
