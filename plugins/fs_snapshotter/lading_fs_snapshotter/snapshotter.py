"""The backend object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from lading.errors import Conflict, InUse, Invalid, LadingError, NotFound
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, LayerSource, Snapshot, Usage
from lading.linux import syscalls
from lading.snapshots import (
    check_name,
    is_name,
    parents_first,
    read_options,
    refuse_labels,
    take_root,
)
from lading_fs_snapshotter.service import Service
from lading_fs_snapshotter.sockets import refusal

ADDRESS = "/run/containerd/containerd.sock"
#: Seconds that each question of ``probe`` may take.
_PROBE_SECONDS = 0.5
#: containerd keeps what has this label (its docs/garbage-collection.md).
_KEEP = {"containerd.io/gc.root": "lading"}
#: The prefix of labels that snapshotters look at (containerd's docs/remote-snapshotter.md).
_INHERITED = "containerd.io/snapshot/"
#: A label has 4096 bytes, with its name.
_LABEL_ROOM = 4000
_KINDS = {1: Kind.VIEW, 2: Kind.ACTIVE, 3: Kind.COMMITTED}


class Snapshotter:
    """Snapshots that containerd, or a proxy snapshotter, has."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"remote-layers"})

    def __init__(self, context: Context) -> None:
        self.name = context.name
        self._configured = bool(context.options)
        # Made before the first snapshot; until then nobody has to be asked what there is.
        self._used = context.data / "used"
        default = context.name if context.name in ("stargz", "nydus", "overlaybd") else "overlayfs"
        options = read_options(
            context,
            {"address": ADDRESS, "namespace": "lading", "snapshotter": default, "timeout": 120.0},
        )
        self.service = Service(
            options["address"].removeprefix("unix://"),
            options["namespace"],
            options["snapshotter"],
            options["timeout"],
            str(context.data),
        )

    @hookimpl
    def probe(self) -> Probe:
        """Somebody listens; where it is used or configured, containerd has the snapshotter."""
        service = self.service
        if reason := refusal(service.address):
            return Probe(
                usable=False,
                reason=f"nobody listens on {service.address}: {reason}",
                remedy=f"start containerd, or set address under [filesystem.{self.name}]",
            )
        details = {"Address": service.address, "Snapshotter": service.snapshotter}
        if not self._configured and not self._used.exists():
            # gRPC is not loaded for a containerd that merely runs here.
            return Probe(usable=True, details=details)
        try:
            version = service.version(_PROBE_SECONDS)
        except LadingError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        if version:
            details["Namespace"] = service.namespace
        return Probe(usable=True, version=version, details=details)

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """``Prepare``; the root of an overlay gets its parent's mode, which containerd leaves."""
        recipe = self._make("Prepare", key, parent, labels)
        _inherit(recipe)
        return recipe

    @hookimpl
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """``View``."""
        return self._make("View", key, parent, labels)

    def _make(
        self, method: str, key: str, parent: str, labels: Mapping[str, str]
    ) -> Sequence[Mount]:
        refuse_labels(self.name, labels)
        check_name(key)
        self._used.touch()
        kept = {**labels, **_KEEP}
        try:
            answer = self.service.call(method, key=key, parent=parent, labels=kept)
        except Invalid as error:
            if parent and self.stat(parent).kind is not Kind.COMMITTED:
                raise NotFound(f'no committed snapshot "{parent}"') from error
            raise
        return _recipe(answer)

    @hookimpl
    def prepare_layer(
        self, key: str, name: str, parent: str, source: LayerSource
    ) -> Sequence[Mount] | None:
        """``Prepare`` that names its target: a remote snapshotter answers that it exists."""
        check_name(name)
        try:
            recipe = self._make("Prepare", key, parent, _source_labels(name, source))
        except Conflict:
            if self._exists(name):
                return None
            raise
        _inherit(recipe)
        return recipe

    def _exists(self, name: str) -> bool:
        try:
            return self.stat(name).kind is Kind.COMMITTED
        except NotFound:
            return False

    @hookimpl
    def commit(self, key: str, name: str) -> None:
        """Sync and ``Commit``, with the labels of ``key``, which containerd would drop."""
        check_name(name)
        snapshot = self._info(key)
        if _KINDS[snapshot.kind] is not Kind.ACTIVE:
            raise Conflict(f'snapshot "{key}" is not an active one')
        _sync(_recipe(self.service.call("Mounts", key=key)))
        self.service.call("Commit", name=name, key=key, labels=dict(snapshot.labels))

    @hookimpl
    def mounts(self, key: str) -> Sequence[Mount]:
        """``Mounts``."""
        with _explained(key):
            return _recipe(self.service.call("Mounts", key=key))

    @hookimpl
    def stat(self, key: str) -> Snapshot:
        """``Stat``."""
        return _snapshot(self._info(key))

    def _info(self, key: str) -> Any:
        check_name(key)
        with _explained(key):
            return self.service.call("Stat", key=key).info

    @hookimpl
    def remove(self, key: str) -> None:
        """``Remove``, and let containerd collect."""
        check_name(key)
        try:
            with _explained(key):
                self.service.call("Remove", key=key)
        except Conflict as error:
            raise InUse(f'snapshot "{key}" is the parent of others') from error
        self.service.collect()

    @hookimpl
    def usage(self, key: str) -> Usage:
        """``Usage``."""
        with _explained(key):
            answer = self.service.call("Usage", key=key)
        return Usage(answer.size, answer.inodes)

    @hookimpl
    def walk(self) -> Iterator[Snapshot]:
        """``List``, in order."""
        if not self._used.exists():
            return iter(())
        found = [_snapshot(info) for info in self.service.listed()]
        # At a proxy's own socket those of containerd are seen too: NAMESPACE/NUMBER/KEY.
        return parents_first({s.key: s for s in found if is_name(s.key)})


def _source_labels(name: str, source: LayerSource) -> dict[str, str]:
    """What remote snapshotters look for, by the names that containerd's CRI plugin gave it.

    As there, annotations of the layer under the same prefix are labels too.
    """
    given = {k: v for k, v in source.annotations.items() if k.startswith(_INHERITED)}
    return {
        **given,
        "containerd.io/snapshot.ref": name,
        f"{_INHERITED}cri.image-ref": source.image,
        f"{_INHERITED}cri.manifest-digest": source.manifest,
        f"{_INHERITED}cri.layer-digest": source.digest,
        f"{_INHERITED}cri.image-layers": _within(source.digest, *source.above),
    }


def _within(*digests: str) -> str:
    """As many digests as a label may hold; the others only matter for speed."""
    joined = ""
    for digest in digests:
        longer = f"{joined},{digest}" if joined else digest
        if len(longer) > _LABEL_ROOM:
            break
        joined = longer
    return joined


@contextmanager
def _explained(key: str) -> Iterator[None]:
    """Say which snapshot it is that is not there; a committed one cannot be mounted."""
    try:
        yield
    except NotFound as error:
        raise NotFound(f'no snapshot "{key}"') from error


def _snapshot(info: Any) -> Snapshot:
    labels = {k: v for k, v in info.labels.items() if not k.startswith("containerd.io/")}
    return Snapshot(info.name, info.parent, _KINDS[info.kind], labels)


def _recipe(answer: Any) -> Sequence[Mount]:
    return [Mount(m.type, m.source, tuple(m.options), m.target) for m in answer.mounts]


def _option(mount: Mount, name: str) -> str:
    return next((w.partition("=")[2] for w in mount.options if w.startswith(f"{name}=")), "")


def _inherit(recipe: Sequence[Mount]) -> None:
    for mount in recipe:
        upper, lowers = _option(mount, "upperdir"), _option(mount, "lowerdir")
        if upper and lowers:
            take_root(Path(lowers.split(":")[0]), Path(upper))


def _sync(recipe: Sequence[Mount]) -> None:
    """Write out what was written to an active snapshot: containerd syncs its table only."""
    for mount in recipe:
        place = _option(mount, "upperdir") or (mount.source if mount.type == "bind" else "")
        if not place:
            # A device: which mounts write to it is the snapshotter's own affair.
            os.sync()
            return
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(descriptor)
        finally:
            os.close(descriptor)
