"""Moving images and stopped containers from one filesystem backend to another.

Each object moves whole or not at all. An image is unpacked anew from its blobs, then its snapshots
elsewhere go. A container's root is made again on the new backend, compared byte by byte, and only
then does its record say where it is. An intent knows both places, so that after a crash the one
that the record does not name is removed; whoever asks again moves what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from lading.backends import Loaded
from lading.containers import asked, roots, storage
from lading.containers.parts import Parts
from lading.containers.records import Container, Status
from lading.containers.table import Live, Table
from lading.containers.volumes import view_key
from lading.errors import Conflict, Invalid, NotFound
from lading.hooks.filesystem import Filesystem
from lading.images import Image

log = logging.getLogger(__name__)

INTENT = "migrate-container"

Tell = Callable[[Mapping[str, Any]], None]


class Migration:
    """Moves between backends; thread safe."""

    def __init__(self, parts: Parts, table: Table) -> None:
        self._parts = parts
        self._table = table

    def run(self, names: Sequence[str], to: str, tell: Tell, *, all: bool = False) -> None:
        """See :meth:`lading.containers.Containers.migrate`."""
        try:
            target = self._parts.filesystems.get(to)
        except NotFound as error:
            raise Invalid(f"unknown storage driver: {to}", hint=error.hint) from error
        lives, images = self._chosen(names, all=all)
        self._check(lives, target, strict=not all)
        for image in images:
            self._unpack(image, target, tell)
        for live in lives:
            with live.lock.doing("its migration"):
                self._check([live], target, strict=not all)
                if self._movable(live.record, target):
                    self._move(live, target, tell)
        self._vacate(images, target, tell)

    def _chosen(self, names: Sequence[str], *, all: bool) -> tuple[list[Live], list[Image]]:
        if all:
            return self._table.all(), list(self._parts.images.list({}, all=True))
        lives, images = [], []
        for name in names:
            try:
                lives.append(self._table.find(name))
            except NotFound:
                try:
                    images.append(self._parts.images.get(name))
                except NotFound:
                    raise NotFound(f"No such container or image: {name}") from None
        return lives, images

    def _check(self, lives: Sequence[Live], target: Loaded[Filesystem], *, strict: bool) -> None:
        """Raises Conflict, naming all that cannot move, before anything does."""
        records = [live.record for live in lives if self._movable(live.record, target)]
        busy = (Status.RUNNING, Status.PAUSED, Status.RESTARTING)
        running = [r.name for r in records if r.state.status in busy]
        if running:
            raise Conflict(
                f"cannot migrate running containers: {', '.join(sorted(running))}",
                hint="stop them first",
            )
        for record in records:
            if place := roots.shown_on(self._parts, record.id):
                raise Conflict(
                    f"cannot migrate container {record.name}: it is mounted on {place}",
                    hint=f"lading unmount {record.name}",
                )
            if record.rootfs_mode == asked.OVERLAID:
                target.require("base-directory")
            if "path" in record.host_config.storage_opt:
                raise Conflict(
                    f"cannot migrate container {record.name}: its layer was placed at "
                    f"{record.host_config.storage_opt['path']}, which is that backend's own"
                )
            limits = storage.labels(record.host_config.storage_opt)
            storage.check(self._parts.filesystems, target.name, limits)
        if strict:
            for live in lives:
                if roots.in_place(live.record):
                    raise Conflict(
                        f"cannot migrate container {live.record.name}: it runs in the directory "
                        f"{live.record.rootfs} itself"
                    )

    def _movable(self, record: Container, target: Loaded[Filesystem]) -> bool:
        return record.filesystem != target.name and not roots.in_place(record)

    def _unpack(self, image: Image, target: Loaded[Filesystem], tell: Tell) -> None:
        shown = _name(image)
        tell({"id": shown, "status": f"Unpacking on {target.name}", "progressDetail": {}})
        self._parts.images.snapshot_for(image, target.name)
        tell({"id": shown, "status": f"Unpacked on {target.name}", "progressDetail": {}})

    def _vacate(self, images: Sequence[Image], target: Loaded[Filesystem], tell: Tell) -> None:
        """Free the space on the other backends, once nothing of this move needs it there."""
        for other in self._parts.filesystems.usable():
            if other.name == target.name:
                continue
            if not self._parts.images.unpacking.vacate(images, other):
                tell({"status": f"Layers that containers stand on stay on {other.name}"})

    def _move(self, live: Live, target: Loaded[Filesystem], tell: Tell) -> None:
        parts, record = self._parts, live.record
        name = record.name

        def say(status: str) -> None:
            tell({"id": name, "status": status, "progressDetail": {}})

        places = {"from": record.filesystem, "to": target.name}
        intent = parts.intents.begin(INTENT, record.id, places)
        with ExitStack() as undo:
            undo.callback(parts.intents.end, intent)
            undo.callback(self._discard, record, target.name)
            self._discard(record, target.name)
            parent = self._parent(record, target, say)
            labels = storage.labels(record.host_config.storage_opt)
            if record.rootfs:
                labels[storage.BASE] = record.rootfs
            recipe = target.hook.prepare(key=record.id, parent=parent, labels=labels)
            say(f"Copying from {record.filesystem} to {target.name}")
            done = parts.archives.carry(roots.recipe(parts, record), recipe)
            self._table.save(live, _moved(record, target.name, parent))
            undo.pop_all()
        self._discard(record, record.filesystem)
        parts.intents.end(intent)
        say(f"Moved to {target.name}: {done.entries} entries, {done.size} bytes, compared")

    def _parent(
        self, record: Container, target: Loaded[Filesystem], say: Callable[[str], None]
    ) -> str:
        if record.rootfs:
            return ""
        try:
            image = self._parts.images.get(record.image)
        except NotFound as error:
            raise Conflict(
                f"cannot migrate container {record.name}: its image was removed by force, and its "
                "layers are nowhere else",
                hint=f"lading commit {record.name} NAME keeps what it has",
            ) from error
        say(f"Unpacking its image on {target.name}")
        return self._parts.images.snapshot_for(image, target.name)

    def _discard(self, record: Container, filesystem: str) -> None:
        """Remove what a container has on one backend; nothing there is fine."""
        hook = self._parts.filesystems.get(filesystem).hook
        views = [view_key(record.id, n) for n, _ in enumerate(record.mounts)]
        for key in (record.id, *views):
            try:
                hook.remove(key=key)
            except NotFound:
                continue

    def resume(self, container_id: str, places: Mapping[str, Any]) -> None:
        """After a crash: the place that the record does not name is not the container's."""
        live = self._table.lookup(container_id)
        if live is None:
            return
        now = live.record.filesystem
        self._discard(live.record, places["to"] if now == places["from"] else places["from"])


def _name(image: Image) -> str:
    return image.repo_tags[0] if image.repo_tags else image.id.removeprefix("sha256:")[:12]


def _moved(record: Container, filesystem: str, parent: str) -> Container:
    host = record.host_config
    if storage.DRIVER in host.storage_opt:
        options = {**host.storage_opt, storage.DRIVER: filesystem}
        host = msgspec.structs.replace(host, storage_opt=options)
    return msgspec.structs.replace(
        record, filesystem=filesystem, snapshot_parent=parent, host_config=host
    )
