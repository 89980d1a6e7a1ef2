"""What containers are made of: the other parts of the engine, and the places on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from lading.archive import Archives
from lading.backends import Backends
from lading.config import Settings
from lading.containers import modes, resources, spec
from lading.containers.records import HostMount
from lading.containers.spec import IdMapping
from lading.errors import Invalid
from lading.hooks import isolation
from lading.hooks.filesystem import Filesystem
from lading.hooks.isolation import Isolation
from lading.images import Image, Images
from lading.model.docker import ContainerConfig, HostConfig, convert
from lading.monitor import Spawner
from lading.networks import Networks
from lading.operations import Operations
from lading.store.db import Database
from lading.store.events import Events
from lading.store.intents import Intents
from lading.volumes import Volumes

#: Asked before ``create``, ``start``, ``exec`` and ``remove``; raises Denied to veto.
Veto = Callable[[str, Mapping[str, Any]], None]


def _no_veto(action: str, container: Mapping[str, Any]) -> None:
    """Without extensions nobody objects."""


@dataclass(frozen=True)
class Parts:
    """The parts that :class:`~lading.containers.Containers` is put together from."""

    db: Database
    intents: Intents
    events: Events
    spawner: Spawner
    archives: Archives
    images: Images
    networks: Networks
    volumes: Volumes
    filesystems: Backends[Filesystem]
    isolations: Backends[Isolation]
    settings: Settings
    data_root: Path
    exec_root: Path
    uid_map: tuple[IdMapping, ...] = ()
    gid_map: tuple[IdMapping, ...] = ()
    veto: Veto = _no_veto
    operations: Operations = field(default_factory=Operations)
    #: What is shown on the host now, by the directory; see ``lading.containers.host_mounts``.
    host_mounts: dict[str, HostMount] = field(default_factory=dict)
    _configs: dict[str, ContainerConfig] = field(default_factory=dict)

    def bundle(self, container_id: str) -> Path:
        """The container's directory that persists; also its OCI bundle."""
        return self.data_root / "containers" / container_id

    def run(self, container_id: str) -> Path:
        """The container's directory on tmpfs."""
        return self.exec_root / "containers" / container_id

    def isolated(self, container_id: str) -> isolation.Container:
        """The container as isolation hooks take it."""
        return isolation.Container(
            container_id, self.bundle(container_id), self.run(container_id) / "state"
        )

    def image_config(self, image: Image) -> ContainerConfig:
        """An image's defaults for containers, read once per image."""
        found = self._configs.get(image.id)
        if found is None:
            document = msgspec.json.decode(image.config_bytes)
            found = convert(document.get("config"), ContainerConfig)
            self._configs[image.id] = found
        return found

    @cached_property
    def defaults(self) -> spec.Defaults:
        """The daemon's defaults for ``config.json``."""
        settings = self.settings
        profile = settings.seccomp_profile
        if profile and profile not in ("builtin", "unconfined"):
            profile = Path(profile).read_text()
        known = {"": None, "builtin": None, "unconfined": ""}
        return spec.Defaults(
            cgroup_parent=settings.cgroup_parent or "/lading",
            shm_size=settings.default_shm_size,
            ulimits=tuple(resources.parse_ulimits(settings.default_ulimits)),
            ipc_mode=settings.default_ipc_mode,
            cgroupns_mode=settings.default_cgroupns_mode,
            no_new_privileges=settings.no_new_privileges,
            seccomp_profile=known.get(profile, profile),
            init=settings.init,
        )

    def id_maps(self, host: HostConfig) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
        """User and group maps of a container; empty when it has no user namespace."""
        if modes.userns(host).host:
            return (), ()
        return self.uid_map, self.gid_map

    def owner(self) -> tuple[int, int]:
        """The host's uid and gid of root in a container."""
        if self.uid_map:
            return self.uid_map[0].outside, self.gid_map[0].outside
        return os.geteuid(), os.getegid()

    def on_host(self, uid: int, gid: int) -> tuple[int, int]:
        """A user and a group of containers as the host has them."""
        return _mapped(uid, self.uid_map), _mapped(gid, self.gid_map)


def _mapped(inside: int, rows: Sequence[IdMapping]) -> int:
    for row in rows:
        if row.inside <= inside < row.inside + row.size:
            return row.outside + inside - row.inside
    if rows:
        raise Invalid(f"user or group {inside}: not in the user namespace of containers")
    return inside
