"""The table of snapshots on disk: keys, parents, kinds and labels.

Each snapshot is a directory named by a number; what else is in it is the backend's affair::

    <root>/snapshots/<number>/meta.json     {"key", "parent", "kind", "labels"}
    <root>/snapshots/new-<number>/          being made
    <root>/snapshots/gone-<number>/         being removed

A snapshot comes into being and goes away by a rename, so after a crash it is whole or absent; what
is left of the others is swept when the table is opened. A thread deletes what is gone, since that
can take seconds for a large tree and nobody has to wait for it. The numbers keep paths short, which
matters where a mount's options must hold a hundred of them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lading.errors import Conflict, InUse, Invalid, NotFound
from lading.hooks.filesystem import Kind, Snapshot
from lading.linux import syscalls

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
META = "meta.json"


def is_name(text: str) -> bool:
    """Whether the contract allows a text as key or name."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> None:
    """Raise Invalid for what cannot be a key or name."""
    if not is_name(text):
        raise Invalid(f'bad snapshot name "{text}"')


@dataclass(slots=True)
class Row:
    """A snapshot and the directory that holds it."""

    snapshot: Snapshot
    directory: Path
    children: set[str] = field(default_factory=set)


class SnapshotTable:
    """All snapshots of one backend; thread safe. ``destroy`` removes a snapshot's directory."""

    def __init__(self, root: Path, destroy: Callable[[Path], None] = shutil.rmtree) -> None:
        self.root = root / "snapshots"
        self._disposal = _Disposal(destroy)
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._busy: set[str] = set()
        self._last = 0
        self._opened = False

    def _open(self) -> None:
        if self._opened:
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in self.root.iterdir():
            if directory.name.isdigit():
                self._load(directory)
            elif directory.name.startswith(("new-", "gone-")):
                # The number stays taken while its debris waits.
                self._last = max(self._last, int(directory.name.rpartition("-")[2]))
                self._disposal.take(directory)
        for row in self._rows.values():
            if row.snapshot.parent in self._rows:
                self._rows[row.snapshot.parent].children.add(row.snapshot.key)
        self._opened = True

    def _load(self, directory: Path) -> None:
        self._last = max(self._last, int(directory.name))
        try:
            meta = json.loads((directory / META).read_bytes())
            snapshot = Snapshot(meta["key"], meta["parent"], Kind(meta["kind"]), meta["labels"])
        except (OSError, ValueError, KeyError) as error:
            # The power went before an active snapshot's table row was on disk.
            log.warning("snapshot %s has no readable %s, it goes: %s", directory, META, error)
            self._disposal.take(directory)
            return
        self._rows[snapshot.key] = Row(snapshot, directory)

    def add(
        self,
        key: str,
        parent: str,
        kind: Kind,
        labels: Mapping[str, str],
        build: Callable[[Path, Path | None], None],
    ) -> Path:
        """Make a snapshot: ``build`` fills its directory, given that and the parent's (or None).

        Raises Conflict for a key in use, NotFound for a parent that is not there or not committed,
        Invalid for a bad key, and what ``build`` raises; nothing is left then.
        """
        check_name(key)
        with self._lock:
            self._open()
            if key in self._rows or key in self._busy:
                raise Conflict(f'snapshot "{key}" exists already')
            base = self._parent(parent)
            self._last += 1
            number = self._last
            self._busy.add(key)
            if base is not None:
                # Before it is made, so that the parent cannot go away meanwhile.
                base.children.add(key)
        snapshot = Snapshot(key, parent, kind, dict(labels))
        temporary, final = self.root / f"new-{number}", self.root / str(number)
        try:
            temporary.mkdir(mode=0o700)
            build(temporary, base.directory if base else None)
            _write_meta(temporary, snapshot)
            temporary.rename(final)
        except BaseException:
            if temporary.exists():
                self._disposal.take(temporary)
            with self._lock:
                self._busy.discard(key)
                if base is not None:
                    base.children.discard(key)
            raise
        with self._lock:
            self._busy.discard(key)
            self._rows[key] = Row(snapshot, final)
        return final

    def _parent(self, name: str) -> Row | None:
        if not name:
            return None
        row = self._rows.get(name)
        if row is None or row.snapshot.kind is not Kind.COMMITTED:
            raise NotFound(f'no committed snapshot "{name}"')
        return row

    def get(self, key: str) -> Row:
        """A snapshot by key or name. Raises NotFound."""
        with self._lock:
            self._open()
            row = self._rows.get(key)
        if row is None:
            raise NotFound(f'no snapshot "{key}"')
        return row

    def ancestors(self, key: str) -> list[Row]:
        """The snapshots below this one, nearest first."""
        found = []
        parent = self.get(key).snapshot.parent
        while parent:
            row = self.get(parent)
            found.append(row)
            parent = row.snapshot.parent
        return found

    def commit(self, key: str, name: str, *, durable: bool = True) -> None:
        """Turn an active snapshot into a committed one. Raises NotFound, Conflict, Invalid.

        ``durable``: everything in it is on disk when this returns.
        """
        check_name(name)
        row = self.get(key)
        with self._lock:
            if row.snapshot.kind is not Kind.ACTIVE:
                raise Conflict(f'snapshot "{key}" is not an active one')
            if name in self._rows or name in self._busy:
                raise Conflict(f'snapshot "{name}" exists already')
            self._busy.add(name)
        try:
            if durable:
                # Its content first: what is called committed must be whole, whatever happens.
                _sync_content(row.directory)
            done = Snapshot(name, row.snapshot.parent, Kind.COMMITTED, row.snapshot.labels)
            _write_meta(row.directory, done)
            if durable:
                _sync(row.directory)
                _sync(self.root)
        finally:
            with self._lock:
                self._busy.discard(name)
        with self._lock:
            self._replace(key, row, done)

    def reparent(self, key: str, parent: str) -> None:
        """Give an active snapshot without parent one. Raises NotFound, Conflict."""
        row = self.get(key)
        with self._lock:
            base = self._parent(parent)
            if row.snapshot.parent or row.snapshot.kind is not Kind.ACTIVE:
                raise Conflict(f'snapshot "{key}" has a parent already, or is not active')
            done = Snapshot(key, parent, Kind.ACTIVE, row.snapshot.labels)
            _write_meta(row.directory, done)
            row.snapshot = done
            if base is not None:
                base.children.add(key)

    def _replace(self, key: str, row: Row, done: Snapshot) -> None:
        del self._rows[key]
        row.snapshot = done
        self._rows[done.key] = row
        base = self._rows.get(done.parent)
        if base is not None:
            base.children.discard(key)
            base.children.add(done.key)

    def remove(self, key: str) -> None:
        """Remove a snapshot. Raises NotFound; InUse while others stand on it."""
        row = self.get(key)
        with self._lock:
            if row.children:
                children = ", ".join(sorted(row.children)[:3])
                raise InUse(f'snapshot "{key}" is the parent of {children}')
            if self._rows.pop(key, None) is None:
                raise NotFound(f'no snapshot "{key}"')
            base = self._rows.get(row.snapshot.parent)
            if base is not None:
                base.children.discard(key)
        gone = self.root / f"gone-{row.directory.name}"
        row.directory.rename(gone)
        self._disposal.take(gone)

    def walk(self) -> Iterator[Snapshot]:
        """All snapshots, parents before children."""
        with self._lock:
            self._open()
            rows = {key: row.snapshot for key, row in self._rows.items()}
        return parents_first(rows)


def parents_first(snapshots: Mapping[str, Snapshot]) -> Iterator[Snapshot]:
    """Snapshots, by key, in the order of ``walk``."""
    done: set[str] = set()
    for start in snapshots:
        chain = []
        at = start
        while at in snapshots and at not in done:
            chain.append(at)
            at = snapshots[at].parent
        for key in reversed(chain):
            done.add(key)
            yield snapshots[key]


class _Disposal:
    """Deletes directories, one after the other, on a thread that ends when there are none."""

    #: So many may wait; beyond, whoever makes more has to help: disks must not fill up with them.
    MOST = 64

    def __init__(self, destroy: Callable[[Path], None]) -> None:
        self._destroy = destroy
        self._lock = threading.Lock()
        self._waiting: deque[Path] = deque()
        self._running = False

    def take(self, directory: Path) -> None:
        """Delete a directory soon; what cannot be deleted is tried again at the next start."""
        with self._lock:
            late = len(self._waiting) >= self.MOST
            if not late:
                self._waiting.append(directory)
                if not self._running:
                    self._running = True
                    threading.Thread(target=self._run, name="disposal", daemon=True).start()
        if late:
            self._try(directory)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                directory = self._waiting.popleft()
            self._try(directory)

    def _try(self, directory: Path) -> None:
        try:
            self._destroy(directory)
        except OSError as error:
            log.warning("deleting %s: %s", directory, error)


def _write_meta(directory: Path, snapshot: Snapshot) -> None:
    document = {
        "key": snapshot.key,
        "parent": snapshot.parent,
        "kind": snapshot.kind.value,
        "labels": dict(snapshot.labels),
    }
    temporary = directory / f"{META}.new"
    with temporary.open("w") as file:
        json.dump(document, file)
        if snapshot.kind is Kind.COMMITTED:
            file.flush()
            os.fdatasync(file.fileno())
    os.replace(temporary, directory / META)


def _sync_content(directory: Path) -> None:
    """Write out every filesystem that holds a part of the snapshot: a link may lead to another."""
    places = {os.stat(p).st_dev: p for p in [directory, *directory.iterdir()] if p.is_dir()}
    for place in places.values():
        with _opened(place) as descriptor:
            syscalls.syncfs(descriptor)


def _sync(directory: Path) -> None:
    with _opened(directory) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
