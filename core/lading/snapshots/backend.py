"""The hooks of a filesystem backend that ask nothing but its table."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.errors import NotFound
from lading.hooks.common import Context, Mount, hookimpl
from lading.hooks.filesystem import Kind, Snapshot, Usage
from lading.snapshots.options import Option, read_options
from lading.snapshots.table import Row, SnapshotTable
from lading.snapshots.trees import tree_usage


class TableBackend(ABC):
    """A backend whose snapshots are directories with the content, or the changes, in ``fs``.

    What is left to write is ``probe``, ``prepare``, which fills a directory by ``table.add``, and
    ``recipe``. Every hook may be overridden.
    """

    spec_version: ClassVar[int] = 1

    #: The options that there are, with their defaults; what is set is in ``options``.
    defaults: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, context: Context, destroy: Callable[[Path], None] = shutil.rmtree) -> None:
        self.options = read_options(context, self.defaults)
        self.name, self.data = context.name, context.data
        self.table = SnapshotTable(context.data, destroy)

    @abstractmethod
    def recipe(self, row: Row) -> Sequence[Mount]:
        """The mounts that show an active snapshot, or a view."""

    @hookimpl
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """A name for what the parent has; a view of nothing shows an empty directory."""
        self.table.add(key, parent, Kind.VIEW, labels, lambda made, _: (made / "fs").mkdir(0o755))
        return self.recipe(self.table.get(key))

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
        return self.recipe(row)

    @hookimpl
    def stat(self, key: str) -> Snapshot:
        """One snapshot."""
        return self.table.get(key).snapshot

    @hookimpl
    def remove(self, key: str) -> None:
        """Remove the directory, in a moment."""
        self.table.remove(key)

    @hookimpl
    def usage(self, key: str) -> Usage:
        """Measure what is in the directory."""
        return Usage(*tree_usage(self.table.get(key).directory / "fs"))

    @hookimpl
    def walk(self) -> Iterator[Snapshot]:
        """All snapshots."""
        return self.table.walk()

    def whole_tree(self, row: Row) -> Sequence[Mount]:
        """The recipe where directories hold the whole content: it, or the parent's read-only."""
        access = "rw" if row.snapshot.kind is Kind.ACTIVE else "ro"
        if access == "ro" and row.snapshot.parent:
            row = self.table.get(row.snapshot.parent)
        return [Mount("bind", str(row.directory / "fs"), ("rbind", access))]
