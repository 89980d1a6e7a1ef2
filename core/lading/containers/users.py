"""Who a container's process is: looked up in its root, remembered per image."""

from __future__ import annotations

import os
import stat

from lading.containers import roots
from lading.containers.parts import Parts
from lading.containers.records import Container
from lading.containers.spec import User
from lading.linux import paths
from lading.roots.databases import read_below
from lading.roots.mounted import to_wire
from lading.roots.users import resolve

READ = "lading.roots.databases:read"


class Users:
    """Resolves users; the databases of images are read once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._images: dict[tuple[str, str], list[str]] = {}

    def of(self, record: Container) -> User:
        """The user of a container that is about to start. Raises Invalid for an unknown one."""
        passwd, group = self._databases(record)
        found = resolve(record.config.user, record.host_config.group_add, passwd, group)
        return User(found.uid, found.gid, found.groups, found.home)

    def in_running(self, record: Container, user: str) -> User:
        """A user of a running container, as its root has it now. Raises Invalid."""
        with paths.opened_root(f"/proc/{record.state.pid}/root") as root:
            passwd, group = read_below(root)
        found = resolve(user, record.host_config.group_add, passwd, group)
        return User(found.uid, found.gid, found.groups, found.home)

    def unchanged(self, record: Container) -> list[str] | None:
        """The databases of a container's image, if its own layer leaves them as they are."""
        return self._databases(record) if self._untouched(record) else None

    def remember(self, filesystem: str, snapshot: str, databases: list[str] | None) -> None:
        """Take over what :meth:`unchanged` told for a snapshot made of that container."""
        if databases is not None:
            self._images[filesystem, snapshot] = databases

    def _databases(self, record: Container) -> list[str]:
        if record.rootfs or not self._untouched(record):
            return self._read(record)
        key = (record.filesystem, record.snapshot_parent)
        if (known := self._images.get(key)) is None:
            known = self._images[key] = self._read(record)
        return known

    def _untouched(self, record: Container) -> bool:
        """Whether the container's own layer has nothing that hides the image's databases."""
        layer = roots.layer(self._parts, record)
        if layer is None:
            return not record.touched
        own = layer.path / "etc"
        try:
            if not stat.S_ISDIR(os.lstat(own).st_mode):
                return False
        except FileNotFoundError:
            return True
        return not any(os.path.lexists(own / name) for name in ("passwd", "group"))

    def _read(self, record: Container) -> list[str]:
        args = {"rootfs": to_wire(roots.recipe(self._parts, record))}
        texts: list[str] = self._parts.spawner.task(READ, args).wait()
        return texts
