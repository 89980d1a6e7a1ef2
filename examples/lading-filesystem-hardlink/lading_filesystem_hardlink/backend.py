"""Snapshots as plain copies that share the files in which they equal their parents.

A writable snapshot is a copy of its parent, made by cp(1). When it is committed nobody writes to it
any more, so each file that is still the same as its parent's becomes a hard link to that one: ten
images on one base have the base's files once. It works wherever there are hard links.

The table of snapshots (keys, parents, kinds, what a crash leaves) is the core's, kept by
:class:`lading.snapshots.SnapshotTable`::

    <data>/snapshots/<n>/meta.json    the table's
                         fs/          the whole tree
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.errors import NotFound, Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, Snapshot, Usage
from lading.snapshots import Row, SnapshotTable, tree_usage
from lading_filesystem_hardlink.sharing import share, shared


class Hardlink:
    """The backend object: one per daemon, called from many threads."""

    spec_version: ClassVar[int] = 1
    #: What it can beyond the must: see CAPABILITIES in lading.hooks.filesystem. Mounting its
    #: snapshots id-mapped takes nothing of it.
    capabilities: ClassVar[frozenset[str]] = frozenset({"idmap"})

    def __init__(self, context: Context) -> None:
        self.table = SnapshotTable(context.data)

    @hookimpl
    def probe(self) -> Probe:
        """It needs cp of the GNU coreutils."""
        path = shutil.which("cp")
        if path is None:
            reason, remedy = "cp is not installed", "install coreutils"
            return Probe(usable=False, reason=reason, remedy=remedy)
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if "GNU" not in done.stdout:
            reason, remedy = f"{path} is not GNU's", "install coreutils"
            return Probe(usable=False, reason=reason, remedy=remedy)
        return Probe(usable=True, version=done.stdout.split()[3])

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Copy the parent."""
        _refuse(labels)

        def build(directory: Path, base: Path | None) -> None:
            top = directory / "fs"
            top.mkdir()
            os.chmod(top, 0o755)
            if base is not None:
                _copy(base / "fs", top)

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self._recipe(self.table.get(key))

    @hookimpl
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Show the parent's own directory; a view of nothing has an empty one."""
        _refuse(labels)
        self.table.add(key, parent, Kind.VIEW, labels, lambda made, _: (made / "fs").mkdir(0o755))
        return self._recipe(self.table.get(key))

    @hookimpl
    def commit(self, key: str, name: str) -> None:
        """Share what is equal; then the table syncs the tree, and renames."""
        row = self.table.get(key)
        if row.snapshot.kind is Kind.ACTIVE and row.snapshot.parent:
            parent = self.table.get(row.snapshot.parent)
            share(parent.directory / "fs", row.directory / "fs")
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
        """One row of the table."""
        return self.table.get(key).snapshot

    @hookimpl
    def remove(self, key: str) -> None:
        """The table refuses a parent, and deletes behind our back."""
        self.table.remove(key)

    @hookimpl
    def usage(self, key: str) -> Usage:
        """Measure the tree, without the files that are its parent's as well."""
        row = self.table.get(key)
        top = row.directory / "fs"
        size, inodes = tree_usage(top)
        if row.snapshot.parent:
            base = self.table.get(row.snapshot.parent).directory / "fs"
            for status in shared(base, top):
                size -= status.st_blocks * 512
                inodes -= 1
        return Usage(size, inodes)

    @hookimpl
    def walk(self) -> Iterator[Snapshot]:
        """The whole table."""
        return self.table.walk()

    def _recipe(self, row: Row) -> Sequence[Mount]:
        directory, access = row.directory, "rw"
        if row.snapshot.kind is Kind.VIEW:
            access = "ro"
            if row.snapshot.parent:
                directory = self.table.get(row.snapshot.parent).directory
        return [Mount("bind", str(directory / "fs"), ("rbind", access))]


def _refuse(labels: Mapping[str, str]) -> None:
    """Limits that this backend cannot hold are refused, never ignored."""
    for label in labels:
        if label.startswith("lading."):
            raise Unsupported(
                f'the hardlink backend cannot hold "{label}"',
                hint="take a backend that declares the capability",
            )


def _copy(source: Path, target: Path) -> None:
    """All that a layer can hold: owners, modes, times, attributes, links, holes, devices."""
    options = ["--archive", "--reflink=auto", "--sparse=auto"]
    command = ["cp", *options, "--", f"{source}/.", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"copy {source}: {done.stderr.strip()}")
