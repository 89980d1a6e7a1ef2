"""The engine's face: everything that can be done with containers, by name or id.

``ref`` is a full id, a name (with or without a leading slash), or a unique prefix of an id. Every
method may be called from any thread. All raise NotFound for an unknown ``ref``; their other errors
are Docker's, in kind and wording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lading.archive import Change, PathStat
from lading.containers import filters, migration, stats, streams, tell, top
from lading.containers.content import Content
from lading.containers.control import Control
from lading.containers.create import Creator
from lading.containers.ending import Endings
from lading.containers.execs import Execs
from lading.containers.host_mounts import HostMounts
from lading.containers.migration import Migration
from lading.containers.network import Connector
from lading.containers.options import (
    AttachOptions,
    CommitOptions,
    Listed,
    ListOptions,
    LogOptions,
    Output,
    Stream,
    Wait,
)
from lading.containers.parts import Parts
from lading.containers.reconcile import Reconciler
from lading.containers.records import (
    Container,
    Created,
    Exec,
    HostMount,
    Processes,
    Pruned,
    Size,
    Status,
)
from lading.containers.removal import INTENT, Remover
from lading.containers.start import Starter
from lading.containers.table import Live, Table
from lading.containers.users import Users
from lading.errors import Conflict, NotFound, Unsupported
from lading.images import Image, NewLayer
from lading.model.docker import (
    ContainerConfig,
    EndpointSettings,
    ExecConfig,
    HostConfig,
    NetworkingConfig,
    Update,
)


class Containers:
    """All containers of one daemon."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        for place in (parts.data_root, parts.exec_root):
            (place / "containers").mkdir(mode=0o711, parents=True, exist_ok=True)
        self._table = Table(parts.db, parts.settings.hook_timeout)
        self._users = Users(parts)
        self._execs = Execs(parts, self._table, self._users)
        self._connector = Connector(parts, self._table)
        starter = Starter(parts, self._table, self._users)
        self.host_mounts = HostMounts(parts)
        remover = Remover(parts, self._table, self._execs, self.host_mounts)
        self._endings = Endings(parts, self._table, starter, remover, self._execs)
        self._control = Control(parts, self._table, self._endings, remover)
        self._creator = Creator(parts, self._table)
        self._content = Content(parts, self._table, self._users)
        self._reconciler = Reconciler(parts, self._table, self._endings, self._execs)
        self._migration = Migration(parts, self._table)
        self.intents = {INTENT: remover.resume, migration.INTENT: self._migration.resume}

    def reconcile(self) -> None:
        """Take up what an earlier daemon left; call once, before anything else."""
        self.host_mounts.recover()
        self._reconciler.run()

    def restart_wanted(self) -> None:
        """Start what the restart policies want running; call once the networks stand."""
        self._reconciler.restart()

    def close(self) -> None:
        """Let go of all containers, which live on."""
        self._endings.close()

    def create(
        self,
        name: str,
        config: ContainerConfig,
        host_config: HostConfig,
        networking: NetworkingConfig,
        platform: str = "",
    ) -> Created:
        """Make a container from an image, without starting it; "" gets a generated name.

        Raises Invalid for wrong or contradicting options, NotFound for the image or a network,
        Conflict for a name in use.
        """
        return self._creator.create(name, config, host_config, networking, platform)

    def get(self, ref: str) -> Container:
        """The record of a container, as it is now. Raises NotFound; Conflict when ambiguous."""
        return self._table.find(ref).record

    def size(self, ref: str) -> Size:
        """Measure a container; may walk its layer."""
        return self._content.size(self._table.find(ref).record)

    def list(self, options: ListOptions) -> Sequence[Listed]:
        """List containers, newest first. Raises Invalid for an unknown filter."""
        return self._list(options)

    def start(
        self,
        ref: str,
        checkpoint: str = "",
        checkpoint_dir: str = "",
        *,
        environment: Sequence[str] = (),
    ) -> None:
        """Run it; returns once the program has been executed.

        ``environment`` are variables for this time, which no record and no image will hold.
        Raises NotModified when it runs already, Conflict when paused or dead, StartFailed when
        the program cannot be executed: then the state keeps exit code and error.
        """
        if checkpoint:
            raise Unsupported("start from a checkpoint: no isolation backend here can do it")
        live = self._table.find(ref)
        live.environment = tuple(environment)
        try:
            self._control.start(live)
        finally:
            live.environment = ()

    def on_host(self, uid: int, gid: int) -> tuple[int, int]:
        """A user and a group of containers as the host has them."""
        return self._parts.on_host(uid, gid)

    def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Ask it to end, kill it after ``timeout`` seconds (-1: never). NotModified if stopped."""
        self._control.stop(self._table.find(ref), timeout, signal)

    def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop and start it."""
        self._control.restart(self._table.find(ref), timeout, signal)

    def kill(self, ref: str, signal: str = "") -> None:
        """Send a signal (name or number; KILL) to its init. Raises Conflict when not running."""
        self._control.kill(self._table.find(ref), signal)

    def pause(self, ref: str) -> None:
        """Freeze its processes. Raises Conflict when paused already or not running."""
        self._control.pause(self._table.find(ref))

    def unpause(self, ref: str) -> None:
        """Thaw its processes. Raises Conflict when not paused."""
        self._control.unpause(self._table.find(ref))

    def rename(self, ref: str, name: str) -> None:
        """Give it another name. Raises Invalid, Conflict."""
        self._control.rename(self._table.find(ref), name)

    def update(self, ref: str, update: Update) -> Sequence[str]:
        """Change limits and the restart policy, also while it runs; returns warnings."""
        return self._control.update(self._table.find(ref), update)

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; with ``volumes`` its anonymous volumes too, with ``force`` a running one.

        Raises Conflict when it runs, or is being removed already.
        """
        self._control.remove(self._table.find(ref), force=force, volumes=volumes)

    def unlink(self, ref: str, alias: str) -> None:
        """Take away the link by which it knows another container. Raises NotFound."""
        self._connector.unlink(self._table.find(ref), alias)

    def wait(self, ref: str, condition: str = "not-running") -> Wait:
        """Promise the exit: ``not-running``, ``next-exit`` or ``removed``.

        The promise holds from the moment of the call, so that a start which follows is seen.
        Raises Invalid for another condition.
        """
        return self._control.wait(self._table.find(ref), condition)

    def logs(self, ref: str, options: LogOptions) -> Output:
        """Read what it has written. Raises Invalid, Unsupported (log driver "none")."""
        return streams.logs(self._table.find(ref), options)

    def attach(self, ref: str, options: AttachOptions) -> Stream:
        """Reach its streams, also before it is started. Raises Conflict when paused."""
        return streams.attach(self._parts.events, self._table.find(ref), options)

    def resize(self, ref: str, rows: int, columns: int) -> None:
        """Set the size of its terminal. Raises Conflict when not running."""
        live = self._table.find(ref)
        if live.monitor is None:
            raise Conflict(f"Container {live.id} is not running")
        live.monitor.resize(rows, columns)
        tell.event(self._parts.events, live.record, "resize", height=str(rows), width=str(columns))

    def exec_create(self, ref: str, config: ExecConfig) -> str:
        """Prepare a process in a running container and return its id. Raises Conflict."""
        return self._execs.create(self._table.find(ref), config)

    def exec_start(
        self,
        exec_id: str,
        *,
        detach: bool = False,
        tty: bool | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> Stream | None:
        """Run a prepared process: at once with ``detach``, else when the stream is connected.

        Raises NotFound, Conflict when it ran already; with ``detach`` also StartFailed. On a
        connected stream a failure to start is written to the client, and is in ``exec_inspect``.
        """
        return self._execs.start(exec_id, detach=detach, tty=tty, size=console_size)

    def exec_inspect(self, exec_id: str) -> Exec:
        """The record of an exec. Raises NotFound."""
        return self._execs.inspect(exec_id)

    def exec_ids(self, ref: str) -> Sequence[str]:
        """The ids of a container's execs that run or wait."""
        return self._execs.ids(self._table.find(ref).id)

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of an exec's terminal."""
        self._execs.resize(exec_id, rows, columns)

    def top(self, ref: str, ps_args: str = "-ef") -> Processes:
        """List its processes with ps(1)'s columns. Raises Conflict when not running."""
        record = self._running(ref)
        backend = self._parts.isolations.get(record.isolation).hook
        pids = backend.processes(container=self._parts.isolated(record.id))
        tell.event(self._parts.events, record, "top")
        return top.processes(frozenset(pids), ps_args)

    def stats(self, ref: str, *, stream: bool, one_shot: bool = False) -> Iterator[dict[str, Any]]:
        """Yield readings of its resources as Docker's JSON, one a second when ``stream``."""
        live = self._table.find(ref)
        return stats.follow(lambda: self._reading(live), stream=stream, one_shot=one_shot)

    def changes(self, ref: str) -> Sequence[Change]:
        """What differs from the image."""
        return self._content.changes(self._table.find(ref).record)

    def export(self, ref: str) -> Iterator[bytes]:
        """Its whole root as a tar stream."""
        return self._content.export(self._table.find(ref).record)

    def archive_stat(self, ref: str, path: str) -> PathStat:
        """Look at one path of its root. Raises NotFound for the path."""
        return self._content.stat(self._table.find(ref).record, path)

    def archive_get(self, ref: str, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """One path of its root as a tar stream."""
        return self._content.get(self._table.find(ref).record, path)

    def archive_put(
        self,
        ref: str,
        path: str,
        stream: Any,
        *,
        no_overwrite_dir_nondir: bool = False,
        copy_uidgid: bool = False,
    ) -> None:
        """Unpack a tar stream (an object with ``read(n)``) into a directory of its root.

        Raises NotFound, Invalid, Denied when that part of the root is read-only.
        """
        self._content.put(
            self._table.find(ref),
            path,
            stream,
            no_overwrite_dir_nondir=no_overwrite_dir_nondir,
            copy_uidgid=copy_uidgid,
        )

    def commit(self, ref: str, options: CommitOptions) -> Image:
        """Make an image of it."""
        return self._content.commit(self._table.find(ref), options)

    def show(self, ref: str, target: str = "") -> HostMount:
        """Show it, read-only, at a directory of the host; "" for one of the engine's own.

        Raises Invalid, Conflict for the directory, Unsupported with a user namespace.
        """
        live = self._table.find(ref)
        with live.lock.doing("a mount on the host"):
            return self.host_mounts.show_container(live, target)

    def hide(self, ref: str, *, force: bool = False) -> Sequence[HostMount]:
        """End that. Raises NotFound when it is not shown, Conflict when somebody is in there."""
        live = self._table.find(ref)
        with live.lock:
            return self.host_mounts.hide(live.id, f"container {live.record.name}", force=force)

    def settle(
        self,
        ref: str,
        *,
        keep: bool = False,
        latest: int | None = None,
        mount_points: Sequence[str] = (),
    ) -> NewLayer | None:
        """What a stopped container has changed, as a layer; None for nothing.

        ``mount_points`` are paths at which something was mounted: what the engine has made there
        to mount on is left out, if nothing was put into it. No time is after ``latest`` (ns).
        Unless ``keep``, its root becomes that of an image with this layer: the container can only
        be removed then. To be called within ``Images.adding``.
        """
        return self._content.settle(
            self._table.find(ref), keep=keep, latest=latest, mount_points=mount_points
        )

    def migrate(
        self,
        names: Sequence[str],
        to: str,
        tell: Callable[[Mapping[str, Any]], None],
        *,
        all: bool = False,
    ) -> None:
        """Move images and stopped containers to another filesystem backend ("": the default).

        ``tell`` gets progress in the form of Docker's JSON messages. Raises NotFound, Invalid, and
        Conflict, naming what runs, before anything is moved; each object moves whole or not at all.
        """
        self._migration.run(names, to, tell, all=all)

    def prune(self, chosen: Mapping[str, Sequence[str]]) -> Pruned:
        """Remove all stopped containers that pass the filters (``until``, ``label``)."""
        return self._prune(chosen)

    def set_host_config(self, ref: str, host_config: HostConfig) -> None:
        """Take over the host's part of the config that clients of 2014 send with ``start``."""
        live = self._table.find(ref)
        with live.lock:
            if live.monitor is None:
                self._creator.replace_host_config(live, host_config)

    def connect(self, network: str, ref: str, settings: EndpointSettings) -> None:
        """Join a network, whether it runs or not. Raises Conflict, Denied, NotFound."""
        self._connector.connect(self._table.find(ref), network, settings)

    def disconnect(self, network: str, ref: str) -> None:
        """Leave a network. Raises NotFound, Denied."""
        self._connector.disconnect(self._table.find(ref), network)

    def users_of_image(self, image_id: str) -> Sequence[Container]:
        """The containers that were made from an image."""
        return [live.record for live in self._table if live.record.image == image_id]

    def _running(self, ref: str) -> Container:
        record = self._table.find(ref).record
        if record.state.status is Status.RESTARTING:
            raise Conflict(
                f"Container {record.id} is restarting, wait until the container is running"
            )
        if not record.state.running:
            raise Conflict(f"Container {record.id} is not running")
        return record

    def _list(self, options: ListOptions) -> Sequence[Listed]:
        context = filters.Context(self.get, self._parts.images, self._networks_of)
        matches = filters.matcher(options.filters, context)
        every = options.all or options.limit > 0 or filters.SHOWS_ALL & set(options.filters)
        records = [live.record for live in self._table]
        records.sort(key=lambda r: r.created, reverse=True)
        found = []
        for record in records:
            if not (every or record.state.running or record.state.status is Status.RESTARTING):
                continue
            if matches(record):
                found.append(Listed(record, self._content.size(record) if options.size else None))
                if len(found) == options.limit:
                    break
        return found

    def _networks_of(self, record: Container) -> Mapping[str, str]:
        return {e.network_name: e.network_id for e in self._parts.networks.of(record).endpoints}

    def _reading(self, live: Live) -> dict[str, Any]:
        record = live.record
        if not record.state.running:
            return stats.empty(record)
        backend = self._parts.isolations.get(record.isolation).hook
        try:
            found = backend.stats(container=self._parts.isolated(record.id))
        except (NotFound, FileNotFoundError):
            return stats.empty(record)
        host_network = record.host_config.network_mode == "host"
        return stats.reading(record, found, host_network=host_network)

    def _prune(self, chosen: Mapping[str, Sequence[str]]) -> Pruned:
        matches = filters.prunable(chosen)
        deleted, space = [], 0
        for live in self._table:
            record = live.record
            if record.state.status not in (Status.CREATED, Status.EXITED, Status.DEAD):
                continue
            if matches(record):
                size = self._content.size(record).rw
                try:
                    self._control.remove(live, force=False, volumes=False)
                except Conflict:
                    continue
                deleted.append(record.id)
                space += size
        self._parts.events.publish("container", "prune", "", {"reclaimed": str(space)})
        return Pruned(deleted, space)
