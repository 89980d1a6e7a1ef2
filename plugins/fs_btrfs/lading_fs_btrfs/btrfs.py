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
from lading_fs_btrfs import subvolumes


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
        top = self._top(key)
        sizes = {}
        for path in self._changed(key):
            try:
                status = os.lstat(top + b"/" + path)
            except FileNotFoundError:
                continue
            sizes[status.st_ino] = status.st_blocks * 512
        return Usage(sum(sizes.values()), len(sizes))

    @hookimpl
    def changed_paths(self, key: str) -> Iterator[bytes]:
        """Compare inode numbers and times of change, which a snapshot has from its parent."""
        return self._changed(key)

    def _top(self, key: str) -> bytes:
        return os.fsencode(self.table.get(key).directory / "fs")

    def _changed(self, key: str) -> Iterator[bytes]:
        row = self.table.get(key)
        parent = row.snapshot.parent
        if row.snapshot.kind is Kind.VIEW:
            return
        yield from _compare(self._top(parent) if parent else b"", self._top(key), b"")

    def recipe(self, row: Row) -> Sequence[Mount]:
        """The subvolume, or the parent's read-only."""
        return self.whole_tree(row)


def _compare(lower: bytes, upper: bytes, prefix: bytes) -> Iterator[bytes]:
    below = _statuses(lower) if lower else {}
    above = _statuses(upper)
    for name in sorted(below.keys() | above.keys()):
        old, new = below.get(name), above.get(name)
        path = prefix + name
        if old is None or new is None or _version(old) != _version(new):
            yield path
        if new is not None and _is_directory(new):
            inside = lower + b"/" + name if old is not None and _is_directory(old) else b""
            yield from _compare(inside, upper + b"/" + name, path + b"/")


def _statuses(directory: bytes) -> dict[bytes, os.stat_result]:
    with os.scandir(directory) as entries:
        return {entry.name: entry.stat(follow_symlinks=False) for entry in entries}


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_ctime_ns


def _is_directory(status: os.stat_result) -> bool:
    return status.st_mode & 0o170000 == 0o040000


def _destroy(directory: Path) -> None:
    """Remove a snapshot's directory with the subvolume in it."""
    top = directory / "fs"
    if top.exists() and subvolumes.is_subvolume(top):
        subvolumes.destroy(top)
    shutil.rmtree(directory)
