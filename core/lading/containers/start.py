"""From a container at rest to a running process."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from lading.containers import health, modes, places, roots, spec, tell, volumes
from lading.containers.network import Connector, write_files
from lading.containers.parts import Parts
from lading.containers.records import Container, Health, State, Status
from lading.containers.table import Live, Table
from lading.containers.users import Users
from lading.errors import LadingError, StartFailed
from lading.hooks.common import Mount
from lading.linux.mounts import mount_one
from lading.monitor import Launch, LogConfig, Monitor
from lading.networks import Sandbox
from lading.store.clock import timestamp

#: Option of a mount whose files' owners are mapped as the container's user namespace says.
IDMAP = "idmap"

log = logging.getLogger(__name__)


class Starter:
    """Launches containers; the caller holds the lock of the one it launches."""

    def __init__(self, parts: Parts, table: Table, users: Users) -> None:
        self._parts = parts
        self._table = table
        self._users = users
        self._connector = Connector(parts, table)

    def launch(self, live: Live) -> Monitor:
        """Run the container's program; when it raises, everything is as before but the state.

        Raises StartFailed when the program cannot be executed, LadingError or OSError otherwise.
        """
        self._parts.veto("start", tell.request(live.record))
        try:
            with ExitStack() as undo:
                monitor = self._launch(live, undo)
                undo.pop_all()
        except Exception as error:
            failed = start_error(error)
            self._note_failure(live, failed)
            raise failed from error
        live.monitor = monitor
        live.started = time.monotonic()
        self._note_start(live, monitor)
        return monitor

    def _launch(self, live: Live, undo: ExitStack) -> Monitor:
        parts, record = self._parts, live.record
        run = parts.run(record.id)
        # What a crash left of an earlier life must not be taken for this one's.
        places.discard(run)
        (run / "state").mkdir(mode=0o700, parents=True)
        undo.callback(places.discard, run)
        rootfs = roots.recipe(parts, record)
        sandbox = self._connector.allocate(record, undo)
        document = self._document(record, sandbox, undo)
        document["process"]["env"] += live.environment
        bundle = parts.bundle(record.id)
        (bundle / "config.json").write_bytes(msgspec.json.encode(document))
        undo.callback(_quietly_delete, parts, record)
        attachments, live.attachments = live.attachments, []
        fds = {**sandbox.held} | {a.spec.fd: a.descriptor for a in attachments}
        try:
            monitor = parts.spawner.monitor(
                Launch(
                    record.id,
                    record.isolation,
                    bundle,
                    run,
                    rootfs=self._mapped(record, rootfs),
                    terminal=record.tty,
                    open_stdin=record.config.open_stdin,
                    stdin_once=record.config.stdin_once,
                    log=log_config(record),
                    attach=tuple(a.spec for a in attachments),
                    start=not sandbox.deferred,
                    hook_timeout=parts.settings.hook_timeout,
                ),
                fds,
            )
        finally:
            for attachment in attachments:
                os.close(attachment.descriptor)
        if sandbox.deferred:
            # Its network namespace belongs to its user namespace, and exists only now.
            parts.networks.attach(record.id, f"/proc/{monitor.pid}/ns/net")
            monitor.start()
        return monitor

    def _mapped(self, record: Container, rootfs: Sequence[Mount]) -> tuple[Mount, ...]:
        """The root's recipe, with the owners as the container's user namespace has them."""
        if not self._parts.id_maps(record.host_config)[0]:
            return tuple(rootfs)
        return tuple(Mount(m.type, m.source, (*m.options, IDMAP), m.target) for m in rootfs)

    def _document(self, record: Container, sandbox: Sandbox, undo: ExitStack) -> spec.Json:
        """The OCI config; on the way the host's side of all mounts is made ready."""
        parts = self._parts
        if spec.root_propagation(record.mounts) == "shared":
            parts.isolations.get(record.isolation).require("rshared")
        hostname = self._hostname(record)
        write_files(record, sandbox, hostname if sandbox.hosts else "")
        record = self._connector.shared_files(record)
        uid_map, gid_map = parts.id_maps(record.host_config)
        return spec.build(
            spec.Inputs(
                container=record,
                user=self._users.of(record),
                hostname=hostname,
                network="" if sandbox.deferred else sandbox.netns_path,
                defaults=parts.defaults,
                joined=self._joined(record),
                sources=volumes.sources(parts, record, undo),
                images=volumes.image_mounts(parts, record),
                shm=self._shm(record, undo),
                links=sandbox.environment,
                uid_map=uid_map,
                gid_map=gid_map,
            )
        )

    def _hostname(self, record: Container) -> str:
        host = record.host_config
        if modes.uts(host).host or (host.network_mode == "host" and not record.config.hostname):
            return os.uname().nodename
        if name := modes.network_container(host):
            return self._hostname(self._table.find(name).record)
        return record.config.hostname

    def _joined(self, record: Container) -> dict[str, str]:
        """Paths of the namespaces that are other containers'. Raises Conflict."""
        host, found = record.host_config, {}
        for kind, mode in (("pid", modes.pid(host)), ("ipc", modes.ipc(host))):
            if mode.container:
                other = self._table.find(mode.container).record
                modes.check_joinable(
                    kind.upper(),
                    mode.container,
                    running=other.state.running,
                    restarting=other.state.status is Status.RESTARTING,
                )
                found[kind] = f"/proc/{other.state.pid}/ns/{kind}"
        return found

    def _shm(self, record: Container, undo: ExitStack) -> str:
        """The directory that others may share as /dev/shm; "" for a private one."""
        ipc = modes.ipc(record.host_config, self._parts.defaults.ipc_mode)
        if ipc.container:
            other = self._table.find(ipc.container).record
            if modes.ipc(other.host_config).host:
                return "/dev/shm"
            return str(self._parts.run(other.id) / "shm")
        if ipc.kind != "shareable":
            return ""
        path = self._parts.run(record.id) / "shm"
        path.mkdir(mode=0o1777)
        size = record.host_config.shm_size or self._parts.defaults.shm_size
        words = ("nosuid", "noexec", "nodev", "mode=1777", f"size={size}")
        mount_one(Mount("tmpfs", "shm", words), str(path))
        return str(path)

    def _note_start(self, live: Live, monitor: Monitor) -> None:
        record = live.record
        started = timestamp(int(monitor.started_at * 1e9))
        state = State(
            status=Status.RUNNING,
            pid=monitor.pid,
            started_at=started,
            finished_at=record.state.finished_at,
            health=Health() if health.has_check(record) else None,
        )
        if record.has_run:
            self._table.save_state(live, state)
        else:
            changed = msgspec.structs.replace(record, state=state, has_run=True, touched=True)
            self._table.save(live, changed, durable=False)
        tell.event(self._parts.events, record, "start")

    def _note_failure(self, live: Live, error: LadingError) -> None:
        code = {errno.ENOENT: 127, errno.EACCES: 126}.get(getattr(error, "errno", 0), 128)
        state = msgspec.structs.replace(
            live.record.state, status=Status.CREATED, pid=0, exit_code=code, error=str(error)
        )
        self._table.save_state(live, state)


def release_mounts(parts: Parts, record: Container) -> None:
    """Undo what the start of a container mounted on the host."""
    places.release(parts.run(record.id))
    for mount in record.mounts:
        if mount.type == "volume":
            volumes.unmount(parts, mount, record.id)


def log_config(record: Container) -> LogConfig:
    """How the monitor keeps the output."""
    config = record.host_config.log_config
    if not record.log_path:
        return LogConfig("none")
    return LogConfig(
        config.type, Path(record.log_path), config.config, log_attributes(record, config.config)
    )


def log_attributes(record: Container, options: Mapping[str, str]) -> dict[str, str]:
    """Labels and environment that the log options ask for in each line, and the tag."""
    environment = dict(row.split("=", 1) for row in record.config.env if "=" in row)
    found = {}
    for option, values in (("labels", record.config.labels), ("env", environment)):
        for key in filter(None, options.get(option, "").split(",")):
            if key in values:
                found[key] = values[key]
        if pattern := options.get(f"{option}-regex"):
            found |= {k: v for k, v in values.items() if re.search(pattern, k)}
    return found


def start_error(error: Exception) -> LadingError:
    """A failure to start as users know it: clients derive their exit code from the wording."""
    if isinstance(error, StartFailed):
        return StartFailed(
            "failed to create task for container: OCI runtime create failed: unable to start "
            f"container process: {error.message}: unknown",
            errno=error.errno,
        )
    if isinstance(error, LadingError):
        return error
    return LadingError(f"start container: {error}")


def _quietly_delete(parts: Parts, record: Container) -> None:
    """Let the backend remove what a failed start left; the failure itself is what is reported."""
    try:
        backend = parts.isolations.get(record.isolation).hook
        backend.delete(container=parts.isolated(record.id))
    except Exception:
        log.exception('delete what is left of the start of container "%s"', record.id)
