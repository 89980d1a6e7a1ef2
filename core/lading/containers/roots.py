"""What a container's root is: a snapshot on top of an image, or a plain directory of the host."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from lading.archive import Hint
from lading.containers import asked
from lading.containers.parts import Parts
from lading.containers.records import Container
from lading.errors import Conflict
from lading.hooks.common import Mount
from lading.hooks.filesystem import Changes, LayerDirectories, LayerDirectory

_serial = itertools.count(1)


def in_place(record: Container) -> bool:
    """Whether the root is a directory of the host itself, without a layer of the container's."""
    return bool(record.rootfs) and record.rootfs_mode != asked.OVERLAID


def recipe(parts: Parts, record: Container) -> Sequence[Mount]:
    """The mounts that show the root, writable. Raises NotFound, Invalid."""
    if record.rootfs:
        asked.check_rootfs_again(record.rootfs)
    if shown_on(parts, record.id):
        return (Mount("bind", str(shown_at(parts, record.id)), ("bind", "rprivate")),)
    if in_place(record):
        return (Mount("bind", record.rootfs, ("rbind", "rprivate")),)
    return parts.filesystems.get(record.filesystem).hook.mounts(key=record.id)


def shown_on(parts: Parts, container_id: str) -> str:
    """The directory of the host where a container is shown, or ""."""
    found = (m.target for m in list(parts.host_mounts.values()) if m.object == container_id)
    return next(found, "")


def shown_at(parts: Parts, object_id: str) -> Path:
    """Where the root of an object that is shown on the host is mounted to be written to."""
    return parts.exec_root / "mounts" / object_id.removeprefix("sha256:") / "root"


def layer(parts: Parts, record: Container) -> LayerDirectory | None:
    """The directory that holds the container's changes, where the backend has such."""
    backend = parts.filesystems.get(record.filesystem)
    if in_place(record) or "layer-directory" not in backend.capabilities:
        return None
    return cast(LayerDirectories, backend.hook).layer_directory(key=record.id)


def hint(parts: Parts, record: Container) -> Hint | None:
    """That directory, or the paths at which changes may be, where the backend knows either."""
    backend = parts.filesystems.get(record.filesystem)
    if in_place(record) or "changes" not in backend.capabilities:
        return layer(parts, record)
    return list(cast(Changes, backend.hook).changed_paths(key=record.id))


@contextmanager
def below(parts: Parts, record: Container) -> Iterator[Sequence[Mount]]:
    """The root without the container's changes, as long as the block runs."""
    if record.rootfs:
        yield (Mount("bind", record.rootfs, ("rbind", "rprivate", "ro")),)
        return
    backend = parts.filesystems.get(record.filesystem).hook
    key = f"{record.id}-view-{next(_serial)}"
    found = backend.view(key=key, parent=record.snapshot_parent, labels={})
    try:
        yield found
    finally:
        backend.remove(key=key)


def check_comparable(record: Container) -> None:
    """Raises Conflict for a root that nothing lies below."""
    if in_place(record):
        raise Conflict(
            f"container {record.name} has no changes of its own: it runs in the directory "
            f"{record.rootfs} itself"
        )


def check_committable(record: Container) -> None:
    """Raises Conflict for a root that is not an image's."""
    if record.rootfs:
        raise Conflict(
            f"cannot commit container {record.name}: it runs on the directory {record.rootfs}, "
            "not on an image",
            hint=f"export and import it: lading export {record.name} | lading import - NAME",
        )
