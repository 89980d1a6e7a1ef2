"""Making a container: everything short of running it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from lading.containers import (
    asked,
    checks,
    demands,
    merge,
    modes,
    names,
    roots,
    security,
    storage,
    tell,
)
from lading.containers import mounts as mount_specs
from lading.containers.parts import Parts
from lading.containers.records import Container, Created, MountPoint
from lading.containers.table import Live, Table
from lading.containers.volumes import check_bind_source, fill, find_image, find_volume
from lading.errors import Conflict, Invalid, NotFound
from lading.images import Image
from lading.model.docker import (
    ContainerConfig,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    RestartPolicy,
)
from lading.store.clock import now

log = logging.getLogger(__name__)

#: What a client that must name an image names when the root is a plain directory.
NO_IMAGE = "scratch"


class Creator:
    """Creates containers in a table."""

    def __init__(self, parts: Parts, table: Table) -> None:
        self._parts = parts
        self._table = table

    def create(
        self,
        name: str,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        platform: str,
    ) -> Created:
        """See :meth:`lading.containers.Containers.create`."""
        if name:
            name = names.check_name(name)
        wishes = asked.read(config.labels)
        image = self._image(config, wishes)
        host = _as_asked(host, wishes)
        checks.check(config, host)
        warnings = _check_platform(image, platform) if image else ()
        defaults = self._parts.image_config(image) if image else ContainerConfig()
        merged = merge.merged(config, defaults)
        checks.check_merged(merged)
        path, *args = merge.command(merged)
        filesystem = self._filesystem(host)
        limits = storage.labels(host.storage_opt)
        storage.check(self._parts.filesystems, filesystem, limits)
        record = Container(
            id=names.new_id(),
            name=name,
            created=now(),
            # A directory that runs with an image's defaults has nothing else of it.
            image=image.id if image and not wishes.rootfs else "",
            config=merged,
            host_config=self._settled(host),
            path=path,
            args=tuple(args),
            filesystem=filesystem,
            isolation=self._isolation(host),
            networking=networking,
            rootfs=wishes.rootfs,
            rootfs_mode=wishes.rootfs_mode,
            hooks=wishes.hooks,
        )
        self._check_backends(record)
        self._parts.veto("create", tell.request(record))
        self._check_joins(record)
        record = self._make(record, None if wishes.rootfs else image)
        tell.event(self._parts.events, record, "create")
        return Created(record.id, warnings)

    def _image(self, config: ContainerConfig, wishes: asked.Asked) -> Image | None:
        """The image, which only a container on a plain directory can do without."""
        if wishes.rootfs and config.image in ("", NO_IMAGE):
            return None
        if not config.image:
            raise Invalid("create container: no image specified")
        return self._parts.images.get(config.image)

    def _check_backends(self, record: Container) -> None:
        """Refuse what the chosen backends cannot hold. Raises Unavailable, Invalid."""
        parts = self._parts
        demands.check(parts, record)
        labels = storage.labels(record.host_config.storage_opt)
        if record.rootfs:
            asked.check_rootfs(record.rootfs, parts.data_root, parts.exec_root)
        if record.rootfs and record.rootfs_mode != asked.OVERLAID and labels:
            raise Invalid(
                f"storage options need a layer of the container's own, and it runs in the "
                f"directory {record.rootfs} itself",
                hint=f"let it run on it: {record.rootfs}:{asked.OVERLAID}",
            )

    def _filesystem(self, host: HostConfig) -> str:
        wanted = host.storage_opt.get(storage.DRIVER, "")
        try:
            return self._parts.filesystems.get(wanted).name
        except NotFound as error:
            raise Invalid(f"unknown storage driver: {wanted}", hint=error.hint) from error

    def _isolation(self, host: HostConfig) -> str:
        wanted = host.runtime or ("" if host.isolation == "default" else host.isolation)
        try:
            return self._parts.isolations.get(wanted).name
        except NotFound as error:
            raise Invalid(f"unknown or invalid runtime name: {wanted}", hint=error.hint) from error

    def _settled(self, host: HostConfig) -> HostConfig:
        """The request with the defaults that hold from now on, so that ``inspect`` shows them."""
        settings = self._parts.settings
        masked, read_only = security.hidden_paths(host)
        changes: dict[str, Any] = {
            "storage_opt": storage.settled(host.storage_opt, self._parts),
            "masked_paths": masked,
            "readonly_paths": read_only,
            "shm_size": host.shm_size or settings.default_shm_size,
            "ipc_mode": host.ipc_mode or settings.default_ipc_mode,
            "cgroupns_mode": modes.cgroupns(host, settings.default_cgroupns_mode).kind,
            "network_mode": host.network_mode or "default",
        }
        own = host.log_config
        driver = own.type or settings.log_driver
        defaults = settings.log_opts if driver == settings.log_driver else {}
        changes["log_config"] = LogConfig(type=driver, config={**defaults, **own.config})
        checks.check_log(driver, changes["log_config"].config)
        if not host.restart_policy.name:
            changes["restart_policy"] = RestartPolicy(name="no")
        if host.memory > 0 and host.memory_swap == 0:
            changes["memory_swap"] = 2 * host.memory
        return msgspec.structs.replace(host, **changes)

    def _check_joins(self, record: Container) -> None:
        """Containers whose namespaces are shared must exist, and be fit for it."""
        host = record.host_config
        if name := modes.pid(host).container:
            self._table.find(name)
        if name := modes.ipc(host).container:
            other = self._table.find(name).record
            if modes.ipc(other.host_config).kind not in ("shareable", "host"):
                raise Conflict(
                    f"cannot join IPC of container {name}: non-shareable IPC (hint: use IpcMode:"
                    "shareable for the donor container)"
                )
        if name := modes.network_container(host):
            self._table.find(name)
        self._parts.networks.check(host.network_mode, record.networking)

    def _make(self, record: Container, image: Image | None) -> Container:
        """Reserve, prepare, write; undone in reverse when a step fails."""
        with ExitStack() as undo:
            name = self._reserve(record.name, record.id, undo)
            record = msgspec.structs.replace(record, name=name)
            parent = self._prepare(record, image, undo)
            record = self._place(record, parent, undo)
            mounts = self._mounts(record, undo)
            record = msgspec.structs.replace(record, mounts=mounts)
            self._fill_volumes(record)
            self._table.add(record)
            undo.pop_all()
        return record

    def _prepare(self, record: Container, image: Image | None, undo: ExitStack) -> str:
        """Make the writable snapshot, if there is to be one, and return its parent."""
        if roots.in_place(record):
            return ""
        parts = self._parts
        backend = parts.filesystems.get(record.filesystem).hook
        labels = storage.labels(record.host_config.storage_opt)
        parent = ""
        if image is None:
            labels[storage.BASE] = record.rootfs
        else:
            parent = parts.images.snapshot_for(image, record.filesystem)
        backend.prepare(key=record.id, parent=parent, labels=labels)
        undo.callback(_quietly, lambda: backend.remove(key=record.id))
        return parent

    def _reserve(self, name: str, container_id: str, undo: ExitStack) -> str:
        while not name:
            candidate = names.generate(self._table.names)
            try:
                self._table.reserve(candidate, container_id)
            except Conflict:
                continue
            undo.callback(self._table.free, candidate)
            return candidate
        self._table.reserve(name, container_id)
        undo.callback(self._table.free, name)
        return name

    def _place(self, record: Container, parent: str, undo: ExitStack) -> Container:
        """Make the container's directory and say where its files will be."""
        bundle = self._parts.bundle(record.id)
        bundle.mkdir(mode=0o711)
        undo.callback(shutil.rmtree, bundle, ignore_errors=True)
        os.mkdir(bundle / "rootfs", 0o711)
        driver = record.host_config.log_config.type
        options = security.parse_options(record.host_config.security_opt)
        hostname = record.config.hostname or (
            "" if modes.uts(record.host_config).host else record.id[: names.SHORT]
        )
        return msgspec.structs.replace(
            record,
            config=msgspec.structs.replace(record.config, hostname=hostname),
            snapshot_parent=parent,
            log_path="" if driver == "none" else str(bundle / f"{record.id}-json.log"),
            hostname_path=str(bundle / "hostname"),
            hosts_path=str(bundle / "hosts"),
            resolv_conf_path=str(bundle / "resolv.conf"),
            process_label=security.process_label(options, record.host_config),
        )

    def _mounts(self, record: Container, undo: ExitStack) -> tuple[MountPoint, ...]:
        """Turn what was asked for into mounts whose volumes exist and are held."""

        def mounts_of(ref: str) -> Sequence[MountPoint]:
            return self._table.find(ref).record.mounts

        parts, host = self._parts, record.host_config
        found = []
        for mount in mount_specs.collect(record.config, host, mounts_of):
            if mount.type == "volume":
                mount = find_volume(parts, mount, record, undo)
            elif mount.type == "image":
                mount = find_image(parts, mount)
            elif mount.type == "bind":
                check_bind_source(mount)
            found.append(mount)
        return tuple(found)

    def _fill_volumes(self, record: Container) -> None:
        wanted = [m for m in record.mounts if m.type == "volume" and m.copy]
        if wanted:
            fill(self._parts, wanted, roots.recipe(self._parts, record), record.id)

    def replace_host_config(self, live: Live, host: HostConfig) -> None:
        """Take over what a client of 2014 says only at ``start``."""
        record = live.record
        checks.check(record.config, host)
        settled = self._settled(host)
        with ExitStack() as undo:
            changed = msgspec.structs.replace(record, host_config=settled)
            mounts = self._mounts(changed, undo)
            changed = msgspec.structs.replace(changed, mounts=mounts)
            self._table.save(live, changed)
            undo.pop_all()
        for mount in record.mounts:
            if mount.name and mount.name not in {m.name for m in mounts}:
                self._parts.volumes.release(mount.name, record.id)


def _as_asked(host: HostConfig, wishes: asked.Asked) -> HostConfig:
    """The request with what its labels say. Raises Invalid for a contradiction."""
    changes: dict[str, Any] = {}
    if wishes.rootfs_mode == asked.READ_ONLY:
        changes["readonly_rootfs"] = True
    if wishes.network:
        if host.network_mode not in ("", "default", "bridge", wishes.network):
            raise Invalid(
                f"conflicting options: the label {asked.NETWORK}={wishes.network} and the network "
                f"mode {host.network_mode}"
            )
        changes["network_mode"] = wishes.network
    return msgspec.structs.replace(host, **changes) if changes else host


def _quietly(undo: Callable[[], object]) -> None:
    """Undo without hiding the error that made it needed."""
    try:
        undo()
    except Exception:
        log.exception("undoing a failed create")


def _check_platform(image: Image, platform: str) -> tuple[str, ...]:
    if not platform:
        return ()
    found = f"{image.config.os}/{image.config.architecture}"
    wanted = platform if "/" in platform else f"linux/{platform}"
    if wanted.startswith(found):
        return ()
    return (
        f"The requested image's platform ({found}) does not match the requested platform "
        f"({wanted})",
    )
