"""The filesystem role: snapshots with parents, given out as mount recipes.

Life cycle (after containerd's snapshotters)::

    prepare(key, parent) ──▶ active ──commit(key, name)──▶ committed ──remove──▶ (gone)
    view(key, parent)    ──▶ view (read-only active)
    active, view         ──remove──▶ (gone)

Glossary

``key``     names an active snapshot or view: for a container, its id.
``name``    names a committed snapshot: for a layer, its chain ID ``sha256:<hex>``
            (OCI image-spec, "Layer ChainID").
``parent``  the name of a committed snapshot, or "" for an empty one.
``recipe``  what ``prepare``, ``view`` and ``mounts`` return: mounts that, made in order on one
            directory, show the snapshot. The backend mounts nothing in the caller's
            namespaces; it returns data, and several callers may mount the same recipe.

Keys and names share one space of strings, ``[A-Za-z0-9_.:-]{1,200}``; a backend maps them to
file names of its own. All hooks may be called from many threads at once, for different keys;
for one key the core makes one call at a time, except ``mounts``, ``usage`` and ``walk``.

Worked walk: a layer. ``prepare("unpack-1", parent="sha256:a")``, the core unpacks the tar on
the mounted recipe, ``commit("unpack-1", "sha256:b")``. A container: ``prepare(id, "sha256:b")``,
its monitor mounts the recipe, at the end ``remove(id)``.

Crash rule: after a kill at any instant each snapshot is either whole or absent from ``walk``;
debris is swept at the next construction or by ``remove``. ``commit`` is durable when it returns
(its data are synced, unless the option ``volatile`` is on).

Errors: NotFound for an unknown key, name or parent; Conflict where a key or name exists
already (``commit`` to an existing name leaves the active snapshot as it was); InUse for
``remove`` of a parent that has children; ``OSError`` ENOSPC and EDQUOT come through as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar, Protocol

from lading.hooks.common import Mount, Probe, hookspec

SPEC_VERSION = 1


class Kind(Enum):
    """What a snapshot is now."""

    ACTIVE = "active"
    VIEW = "view"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot as ``walk`` lists it; ``labels`` are those given at ``prepare``."""

    key: str
    parent: str
    kind: Kind
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Space that a snapshot takes by itself, without its parents: bytes on disk and inodes."""

    size: int
    inodes: int


class Whiteouts(Enum):
    """How a layer directory writes down a deletion.

    ``OVERLAY``: character device 0:0, and xattr ``trusted.overlay.opaque`` = ``y`` on opaque
    directories (kernel Documentation/filesystems/overlayfs.rst). ``OVERLAY_USER``: the same
    in the ``user.overlay.`` namespace. ``AUFS``: files ``.wh.NAME`` and ``.wh..wh..opq``.
    """

    OVERLAY = "overlayfs"
    OVERLAY_USER = "overlayfs-user"
    AUFS = "aufs-files"


@dataclass(frozen=True, slots=True)
class LayerDirectory:
    """The plain directory that holds what a snapshot changes against its parent."""

    path: Path
    whiteouts: Whiteouts


@dataclass(frozen=True, slots=True)
class LayerSource:
    """Where a registry has a layer, for backends that fetch content by themselves.

    ``image`` is the canonical reference (``docker.io/library/busybox:latest``) and ``manifest`` the
    digest of its manifest; ``digest`` is the layer's blob, ``above`` those of the layers on top of
    it, nearest first; ``annotations`` are those of the layer's descriptor.
    """

    image: str
    manifest: str
    digest: str
    above: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


class Filesystem(Protocol):
    """The hooks every filesystem backend has.

    Capabilities: ``layer-directory`` (:class:`LayerDirectories`), ``changes``
    (:class:`Changes`), ``remote-layers`` (:class:`RemoteLayers`), ``quota-size`` and
    ``quota-inodes`` (the labels ``lading.size`` and ``lading.inodes``, decimal, limit the bytes and
    files that an active snapshot has by itself, whatever its parents hold; a backend without the
    capability raises Unsupported for them), ``upper-path`` (label ``lading.path``: absolute
    directory for the writable layer), ``base-directory`` (label ``lading.base``, with parent ""
    only: absolute directory that the snapshot lies on and never writes to; it may be anybody's, so
    it is neither committed nor viewed), ``idmap`` (its recipe may be mounted id-mapped).
    """

    spec_version: ClassVar[int]
    capabilities: ClassVar[frozenset[str]]

    @hookspec(firstresult=True)
    def probe(self) -> Probe:
        """Tell whether this backend works on its data directory; at most 1 s, no lasting effect."""
        ...

    @hookspec(firstresult=True)
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make a writable snapshot on top of ``parent`` and return its recipe.

        Raises NotFound (parent), Conflict (key), Unsupported (a ``lading.`` label it cannot hold).
        """
        ...

    @hookspec(firstresult=True)
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make a read-only snapshot of ``parent``; as ``prepare`` otherwise."""
        ...

    @hookspec(firstresult=True)
    def commit(self, key: str, name: str) -> None:
        """Turn the active snapshot ``key`` into the committed ``name``; ``key`` is free afterwards.

        The caller has unmounted it. Raises NotFound, Conflict (name exists, or key is a view).
        """
        ...

    @hookspec(firstresult=True)
    def mounts(self, key: str) -> Sequence[Mount]:
        """Return the recipe of an active snapshot or view again. Raises NotFound."""
        ...

    @hookspec(firstresult=True)
    def stat(self, key: str) -> Snapshot:
        """Return what ``walk`` would say of one key or name. Raises NotFound."""
        ...

    @hookspec(firstresult=True)
    def remove(self, key: str) -> None:
        """Remove a snapshot of any kind. Raises NotFound, InUse (it has children)."""
        ...

    @hookspec(firstresult=True)
    def usage(self, key: str) -> Usage:
        """Measure one snapshot; may walk a tree and take seconds. Raises NotFound."""
        ...

    @hookspec(firstresult=True)
    def walk(self) -> Iterator[Snapshot]:
        """Yield every snapshot, parents before children."""
        ...


class LayerDirectories(Protocol):
    """Capability ``layer-directory``: changes lie as plain files in one directory.

    The core unpacks layers straight into it, several of one image at a time, and reads the
    differences of a container from it alone.
    """

    @hookspec(firstresult=True)
    def layer_directory(self, key: str) -> LayerDirectory:
        """Return the directory of an active or committed snapshot. Raises NotFound."""
        ...

    @hookspec(firstresult=True)
    def rebase(self, key: str, parent: str) -> None:
        """Give an active snapshot that was prepared without parent its parent, before commit.

        Raises NotFound, Conflict (it has a parent already).
        """
        ...


class Changes(Protocol):
    """Capability ``changes``: name what may differ between a snapshot and its parent, fast.

    The core looks there, and nowhere else, for what a container has changed. It looks through the
    whole of a directory itself where there was none before.
    """

    @hookspec(firstresult=True)
    def changed_paths(self, key: str) -> Iterator[bytes]:
        """Yield a superset of the changed paths, relative, parents first. Raises NotFound."""
        ...


class RemoteLayers(Protocol):
    """Capability ``remote-layers``: layers of an image in a registry may be there unasked.

    Lazily loading and deduplicating backends know a layer by where it comes from, and need no
    unpacking. The core asks for each layer that it would unpack, the lowest first.
    """

    @hookspec(firstresult=True)
    def prepare_layer(
        self, key: str, name: str, parent: str, source: LayerSource
    ) -> Sequence[Mount] | None:
        """Have the layer as the committed ``name``, or prepare ``key`` to unpack it in.

        None: ``name`` is there on ``parent`` now, and ``key`` is free. Otherwise as ``prepare``.
        """
        ...


OPTIONAL: Mapping[str, type] = {
    "layer-directory": LayerDirectories,
    "changes": Changes,
    "remote-layers": RemoteLayers,
}

#: What each capability promises; a request that needs one which the backend lacks is refused.
CAPABILITIES: Mapping[str, str] = {
    "layer-directory": "changes lie as plain files in one directory",
    "changes": "changed paths are named without a walk through the tree",
    "remote-layers": "layers of an image in a registry may be there without being unpacked",
    "quota-size": "the bytes that a writable snapshot has by itself can be limited",
    "quota-inodes": "the files that a writable snapshot has by itself can be limited",
    "upper-path": "the writable layer can be placed in a directory of the user's choice",
    "base-directory": "a writable snapshot can lie on any directory of the host",
    "idmap": "snapshots can be mounted id-mapped, for user namespaces",
}
