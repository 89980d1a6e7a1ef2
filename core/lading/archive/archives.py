"""The engine's face of archives: each method runs one task and waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lading.archive.unpack import DIGEST_ROW
from lading.hooks.common import Mount
from lading.hooks.filesystem import LayerDirectory, Whiteouts
from lading.monitor import Spawner, Task

TASKS = "lading.archive.tasks"

#: What is known of differences: the directory that holds them, or all paths where they may be.
Hint = LayerDirectory | Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Bind:
    """A host directory or file that a stopped container's root shows at ``target``."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """A root to work on: that of a running process ``pid``, or else a recipe with binds."""

    mounts: Sequence[Mount] = ()
    binds: Sequence[Bind] = ()
    pid: int = 0

    def to_wire(self) -> dict[str, Any]:
        """The members as JSON."""
        return {
            "rootfs": [[m.type, m.source, list(m.options), m.target] for m in self.mounts],
            "binds": [[b.source, b.target, b.read_only] for b in self.binds],
            "pid": self.pid,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """One line of ``diff``: absolute ``path``, ``kind`` 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


@dataclass(frozen=True, slots=True)
class PathStat:
    """What a path is: its last component, size in bytes, Go's ``os.FileMode``, RFC 3339 time."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """An unpacked layer.

    ``diff_id`` is the digest and ``length`` the length of the uncompressed tar, ``size`` the sum of
    the files' sizes; ``implied`` and ``whiteouts`` are what :meth:`Archives.adopt` has to settle.
    """

    diff_id: str
    length: int
    size: int
    entries: int
    implied: Sequence[str] = ()
    whiteouts: Sequence[str] = ()

    @property
    def settled(self) -> bool:
        """Whether nothing depends on the layer's parent."""
        return not self.implied and not self.whiteouts


@dataclass(frozen=True, slots=True)
class Packed:
    """A written tar: its digest and length, the sum of the files' sizes, the number of entries."""

    digest: str
    length: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class Carried:
    """What had to be copied to make two trees agree: entries, and bytes of their content."""

    entries: int
    size: int


class Archives:
    """Runs archive tasks; thread safe."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    def _run(
        self,
        name: str,
        args: dict[str, Any],
        fds: Sequence[int] = (),
        *,
        mount_namespace: bool = True,
    ) -> Any:
        task = self._spawner.task(f"{TASKS}:{name}", args, fds, mount_namespace=mount_namespace)
        try:
            return task.wait()
        finally:
            task.close()

    def task(self, name: str, args: dict[str, Any], fds: Sequence[int] = ()) -> Task:
        """Start a task of this package without waiting for it."""
        return self._spawner.task(f"{TASKS}:{name}", args, fds)

    def apply(self, root: Root, stream: int, *, alone: bool = False, init: bool = False) -> Applied:
        """Unpack a layer, compressed or not, read from the descriptor ``stream``.

        ``root`` shows the parent layers, so whiteouts are carried out. ``alone``: it has none, so
        whiteouts mean nothing. ``init``: see to the engine's mount points afterwards. Raises
        Invalid for a bad archive, OSError.
        """
        args = {**root.to_wire(), "alone": alone, "init": init}
        return Applied(**self._run("apply", args, [stream]))

    def apply_directory(
        self, layer: LayerDirectory, stream: int, *, parent: bool
    ) -> Applied | None:
        """Unpack a layer straight into a layer directory.

        ``parent``: the layer has one. Returns None when it cannot be done without seeing the
        parent; the directory's content is then undefined. Unless it is ``settled``,
        :meth:`adopt` comes next.
        """
        args = {
            "directory": str(layer.path),
            "whiteouts": layer.whiteouts.value,
            "alone": parent,
        }
        found = self._run("apply_directory", args, [stream])
        return None if found is None else Applied(**found)

    def adopt(self, layer: LayerDirectory, parent: Sequence[Mount], applied: Applied) -> bool:
        """Settle what depends on the parent of a layer that was unpacked without it.

        Returns False where the parent has something else than a directory in the place of one
        that the layer has no entry for: then the layer has to be unpacked again, by :meth:`apply`.
        """
        args = {
            "directory": str(layer.path),
            "parent": Root(parent).to_wire()["rootfs"],
            "implied": list(applied.implied),
            "whiteouts": list(applied.whiteouts),
        }
        return bool(self._run("adopt", args))

    def digest(self, stream: int) -> Applied:
        """Only read a layer: its digest, and the sum of its files' sizes. Raises Invalid."""
        return Applied(**self._run("digest", {}, [stream]))

    def changes(
        self, lower: Sequence[Mount], upper: Sequence[Mount], hint: Hint | None = None
    ) -> list[Change]:
        """What a snapshot (``upper``) changes against its parent (``lower``).

        With ``hint`` only what that names is looked at.
        """
        with _listed(hint) as paths:
            rows = self._run("changes", _pair(lower, upper, hint), paths)
        return [Change(path, kind) for path, kind in rows]

    def diff(
        self,
        lower: Sequence[Mount],
        upper: Sequence[Mount],
        out: int,
        hint: Hint | None = None,
        latest: int | None = None,
    ) -> Packed:
        """Write the changes as an OCI layer, uncompressed, to the descriptor ``out``.

        No time in it is later than ``latest``, in nanoseconds.
        """
        args = {**_pair(lower, upper, hint), "latest": latest}
        with _listed(hint) as paths:
            return Packed(**self._run("diff", args, [out, *paths]))

    def carry(self, source: Sequence[Mount], target: Sequence[Mount]) -> Carried:
        """Make the tree that ``target`` shows exactly like ``source``, durably, and compare them.

        Raises LadingError when they do not agree in the end, OSError.
        """
        return Carried(**self._run("carry", _pair(source, target, None)))

    def export(self, root: Root, out: int) -> Packed:
        """Write the whole tree."""
        return Packed(**self._run("export", root.to_wire(), [out]))

    def stat(self, root: Root, path: str) -> PathStat:
        """Look at a path; its last component is not followed. Raises NotFound."""
        return PathStat(**self._run("stat_path", {**root.to_wire(), "path": path}))

    def copy_out(self, root: Root, path: str, out: int) -> PathStat:
        """Write a path, a directory with all that is in it, named by its last component."""
        return PathStat(**self._run("copy_out", {**root.to_wire(), "path": path}, [out]))

    def copy_in(
        self,
        root: Root,
        path: str,
        stream: int,
        *,
        keep_kinds: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Unpack a tar, compressed or not, into the directory ``path``.

        ``keep_kinds``: no file replaces a directory or the reverse. ``owner`` overrides that of
        the entries. Raises NotFound, Invalid (not a directory), Denied (mounted read-only).
        """
        args = {
            **root.to_wire(),
            "path": path,
            "keep_kinds": keep_kinds,
            "owner": list(owner) if owner else None,
        }
        self._run("copy_in", args, [stream])

    def unpack_hashed(self, directory: Path, stream: int) -> dict[int, bytes]:
        """Unpack a tar, compressed or not, into a directory of the host that nobody else uses.

        Returns the SHA-256 of each file's content by inode number; sparse files are left out.
        Raises Invalid.
        """
        table = os.memfd_create("digests", os.MFD_CLOEXEC)
        with open(table, "rb") as rows:
            args = {"directory": str(directory)}
            self._run("unpack_hashed", args, [stream, table], mount_namespace=False)
            rows.seek(0)
            return dict(DIGEST_ROW.iter_unpack(rows.read()))

    def drop_mount_points(
        self, lower: Sequence[Mount], upper: Sequence[Mount], places: Sequence[str]
    ) -> None:
        """Remove from ``upper`` what was made at ``places`` to mount on, with empty directories
        above: what ``lower`` has not got, and holds nothing."""
        self._run("drop_mount_points", {**_pair(lower, upper, None), "places": list(places)})

    def touch_init(self, root: Root) -> None:
        """Make the mount points that an engine needs in a root: see ``lading.images``."""
        self._run("touch_init", root.to_wire())


def _pair(lower: Sequence[Mount], upper: Sequence[Mount], hint: Hint | None) -> dict[str, Any]:
    layer = hint if isinstance(hint, LayerDirectory) else None
    return {
        "lower": Root(lower).to_wire()["rootfs"],
        # What is in a layer directory need not be mounted, a second time perhaps.
        "upper": [] if layer else Root(upper).to_wire()["rootfs"],
        "layer": None if layer is None else str(layer.path),
        "whiteouts": (layer.whiteouts if layer else Whiteouts.OVERLAY).value,
        "paths": hint is not None and layer is None,
    }


@contextmanager
def _listed(hint: Hint | None) -> Iterator[list[int]]:
    """A descriptor of the paths that a hint names, if it does."""
    if hint is None or isinstance(hint, LayerDirectory):
        yield []
        return
    with open(os.memfd_create("paths"), "w+b") as file:
        file.write(b"\0".join(hint))
        file.seek(0)
        yield [file.fileno()]
