"""The backend object."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.hooks import Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind
from lading.snapshots import Row, TableBackend, refuse_labels
from lading_fs_vfs.copying import copy_tree, reflinks


class Vfs(TableBackend):
    """Snapshots as whole copies."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"idmap"})

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
        refuse_labels(self.name, labels)

        def build(directory: Path, base: Path | None) -> None:
            (directory / "fs").mkdir(mode=0o755)
            (directory / "fs").chmod(0o755)
            if base is not None:
                copy_tree(base / "fs", directory / "fs")

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self.recipe(self.table.get(key))

    def recipe(self, row: Row) -> Sequence[Mount]:
        """The copy, or the parent's read-only."""
        return self.whole_tree(row)
