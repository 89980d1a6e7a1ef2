"""The volumes and images that a container mounts: found at create, shown on the host at start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from lading.containers.parts import Parts
from lading.containers.records import Container, MountPoint
from lading.errors import Invalid, NotFound
from lading.hooks.common import Mount
from lading.linux import paths, syscalls
from lading.linux.mounts import mount_one
from lading.roots.mounted import to_wire

FILL = "lading.roots.fill:fill"


def find_volume(parts: Parts, mount: MountPoint, record: Container, undo: ExitStack) -> MountPoint:
    """Make or find the volume and hold it for the container. Raises NotFound, Invalid."""
    if mount.name:
        # A named volume of --volumes-from is held under its own driver already.
        volume = parts.volumes.create(mount.name, mount.driver)
    else:
        volume = parts.volumes.create("", mount.driver)
        undo.callback(parts.volumes.remove, volume.name, force=True)
    parts.volumes.acquire(volume.name, record.id)
    undo.callback(parts.volumes.release, volume.name, record.id)
    return msgspec.structs.replace(
        mount, name=volume.name, driver=volume.driver, source=volume.mountpoint
    )


def find_image(parts: Parts, mount: MountPoint) -> MountPoint:
    """Settle which image a mount of type image means. Raises NotFound."""
    return msgspec.structs.replace(
        mount, name=mount.source, source=parts.images.get(mount.source).id
    )


def fill(
    parts: Parts, mounts: Sequence[MountPoint], rootfs: Sequence[Mount], container_id: str
) -> None:
    """Copy what the image has at the places of empty volumes into them."""
    wanted = []
    for mount in mounts:
        target = parts.volumes.mount(mount.name, container_id)
        if mount.subpath or any(os.scandir(target)):
            parts.volumes.unmount(mount.name, container_id)
        else:
            wanted.append(mount)
    if not wanted:
        return
    try:
        args = {
            "rootfs": to_wire(rootfs),
            "volumes": [
                {"source": m.destination, "target": str(parts.volumes.get(m.name).mountpoint)}
                for m in wanted
            ],
        }
        parts.spawner.task(FILL, args).wait()
    finally:
        for mount in wanted:
            parts.volumes.unmount(mount.name, container_id)


def sources(parts: Parts, record: Container, undo: ExitStack) -> dict[str, str]:
    """Where on the host each bind and volume of a starting container lies, by destination.

    Makes what is missing where Docker does. Raises Invalid for a bind source that is gone.
    """
    found = {}
    for mount in record.mounts:
        if mount.type == "bind":
            found[mount.destination] = _bind_source(parts, mount)
        elif mount.type == "volume":
            path = parts.volumes.mount(mount.name, record.id)
            undo.callback(parts.volumes.unmount, mount.name, record.id)
            found[mount.destination] = (
                below(parts, path, mount.subpath, record.id, undo) if mount.subpath else str(path)
            )
    return found


def check_bind_source(mount: MountPoint) -> None:
    """Raises Invalid when the source is missing and is not to be made."""
    if not mount.create_source and not os.path.lexists(mount.source):
        raise Invalid(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )


def _bind_source(parts: Parts, mount: MountPoint) -> str:
    check_bind_source(mount)
    if not os.path.lexists(mount.source):
        os.makedirs(mount.source, mode=0o755)
        if parts.uid_map:
            os.chown(mount.source, *parts.owner())
    return mount.source


def below(parts: Parts, root: Path, subpath: str, container_id: str, undo: ExitStack) -> str:
    """A path inside a volume, pinned: what a container swaps there later is not followed.

    The place is opened inside the volume and bind-mounted by its descriptor under the run
    directory, where only root can go. Raises NotFound.
    """
    pins = parts.run(container_id) / "pins"
    pins.mkdir(mode=0o700, exist_ok=True)
    try:
        with paths.opened_root(root) as top:
            descriptor = paths.open_in_root(top, subpath, os.O_PATH)
    except OSError as error:
        raise NotFound(f'subpath "{subpath}" of the volume: {error.strerror}') from error
    try:
        pin = pins / str(len(os.listdir(pins)))
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            pin.mkdir()
        else:
            pin.touch()
        mount_one(Mount("bind", f"/proc/self/fd/{descriptor}", ("rbind",)), str(pin))
        undo.callback(syscalls.umount2, str(pin), syscalls.MNT_DETACH)
    finally:
        os.close(descriptor)
    return str(pin)


def image_mounts(parts: Parts, record: Container) -> Iterator[tuple[MountPoint, Sequence[Mount]]]:
    """The recipes of a container's image mounts, each a view that goes with the container."""
    for number, mount in enumerate(record.mounts):
        if mount.type != "image":
            continue
        backend = parts.filesystems.get(record.filesystem).hook
        key = view_key(record.id, number)
        try:
            yield mount, backend.mounts(key=key)
        except NotFound:
            image = parts.images.get(mount.source)
            parent = parts.images.snapshot_for(image, record.filesystem)
            yield mount, backend.view(key=key, parent=parent, labels={})


def view_key(container_id: str, number: int) -> str:
    """The snapshot key of a container's n-th mount."""
    return f"{container_id}-image-{number}"
