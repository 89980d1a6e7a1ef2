"""The volumes and images that a container mounts: found at create, shown on the host at start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from lading.containers import places, tell
from lading.containers.parts import Parts
from lading.containers.records import Container, MountPoint
from lading.errors import Invalid, NotFound
from lading.hooks.common import Mount
from lading.linux import paths
from lading.linux.mounts import mount_one, mount_recipe
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
    run = parts.run(record.id)
    for mount in record.mounts:
        if mount.type == "bind":
            found[mount.destination] = _bind_source(parts, mount)
        elif mount.type == "volume":
            path = parts.volumes.mount(mount.name, record.id)
            undo.callback(unmount, parts, mount, record.id)
            tell.mounted(parts.events, mount, record.id)
            found[mount.destination] = (
                below(run, path, mount.subpath) if mount.subpath else str(path)
            )
    return found


def unmount(parts: Parts, mount: MountPoint, container_id: str) -> None:
    """Undo what a start did with a volume; a second call does nothing."""
    if parts.volumes.unmount(mount.name, container_id):
        tell.unmounted(parts.events, mount, container_id)


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


def below(run: Path, root: Path, subpath: str) -> str:
    """A path inside a volume or image, pinned: what is swapped there later is not followed.

    The place is opened inside the root and bind-mounted by its descriptor under the run
    directory, where only root can go; it stays until that is released. Raises NotFound.
    """
    try:
        with paths.opened_root(root) as top:
            descriptor = paths.open_in_root(top, subpath, os.O_PATH)
    except OSError as error:
        raise NotFound(f'subpath "{subpath}": {os.strerror(error.errno or 0)}') from error
    try:
        source = f"/proc/self/fd/{descriptor}"
        pin = places.pin(run, os.path.isdir(source))
        mount_one(Mount("bind", source, ("rbind", "rprivate")), str(pin))
    finally:
        os.close(descriptor)
    return str(pin)


def image_mounts(parts: Parts, record: Container) -> dict[str, Sequence[Mount]]:
    """The recipes of a container's image mounts, by destination; each is a view of its own."""
    found: dict[str, Sequence[Mount]] = {}
    run = parts.run(record.id)
    for number, mount in enumerate(record.mounts):
        if mount.type != "image":
            continue
        recipe = _view(parts, record, number)
        if mount.subpath:
            whole = places.pin(run, directory=True)
            mount_recipe(recipe, str(whole))
            part = below(run, whole, mount.subpath)
            recipe = [Mount("bind", part, ("rbind", "rprivate", "ro"))]
        found[mount.destination] = recipe
    return found


def _view(parts: Parts, record: Container, number: int) -> Sequence[Mount]:
    backend = parts.filesystems.get(record.filesystem).hook
    key = view_key(record.id, number)
    try:
        return backend.mounts(key=key)
    except NotFound:
        image = parts.images.get(record.mounts[number].source)
        parent = parts.images.snapshot_for(image, record.filesystem)
        return backend.view(key=key, parent=parent, labels={})


def view_key(container_id: str, number: int) -> str:
    """The snapshot key of a container's n-th mount."""
    return f"{container_id}-image-{number}"
