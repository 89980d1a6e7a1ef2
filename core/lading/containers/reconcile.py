"""Daemon start: what the metadata say against what is there.

Monitors that live are connected to again; containers that ended meanwhile get their true exit
status from ``exit.json``; what a crash left half-done is finished; what belongs to nobody is swept.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Set

import msgspec

from lading.backends import Loaded
from lading.containers import places, policy
from lading.containers.ending import LOST, Endings
from lading.containers.execs import Execs
from lading.containers.parts import Parts
from lading.containers.records import State, Status
from lading.containers.table import Live, Table
from lading.errors import LadingError, NotFound
from lading.hooks.filesystem import Filesystem, Kind
from lading.monitor import Exit, Monitor, read_exit
from lading.store.clock import nanoseconds, now, timestamp

log = logging.getLogger(__name__)

_CONTAINER_KEY = re.compile(r"([0-9a-f]{64})(-(image|view)-\d+)?")


class Reconciler:
    """Runs once, before the daemon listens."""

    def __init__(self, parts: Parts, table: Table, endings: Endings, execs: Execs) -> None:
        self._parts = parts
        self._table = table
        self._endings = endings
        self._execs = execs

    def run(self) -> None:
        """Make memory, metadata and host agree. Failures of one container do not stop the rest."""
        self._endings.deferring = True
        for live in self._table:
            for mount in live.record.mounts:
                if mount.type == "volume":
                    self._hold(live, mount.name)
        for live in self._table:
            try:
                self._reconnect(live)
            except Exception:
                log.exception('take up container "%s"', live.id)
        self._parts.volumes.unmount_unused()
        self._sweep()

    def _hold(self, live: Live, volume: str) -> None:
        try:
            self._parts.volumes.acquire(volume, live.id)
        except NotFound:
            log.warning('container "%s": its volume "%s" is gone', live.id, volume)

    def _reconnect(self, live: Live) -> None:
        run = self._parts.run(live.id)
        try:
            monitor = Monitor.connect(run)
        except NotFound:
            self._catch_up(live)
            return
        with live.lock.patiently("its taking up"):
            self._take_up(live, monitor)

    def _take_up(self, live: Live, monitor: Monitor) -> None:
        """Its monitor lives: the container runs, or has been created by a daemon that died."""
        seen = monitor.state()
        if seen.status == "created":
            # The launch was never answered, so nobody was told that it runs.
            monitor.close()
            self._endings.clean(live)
            return
        record, live.monitor = live.record, monitor
        self._execs.take_up(live.id, seen)
        live.started = time.monotonic() - max(0.0, time.time() - seen.started_at)
        if not record.state.running:
            state = State(
                status=Status.RUNNING,
                pid=seen.pid,
                started_at=timestamp(int(seen.started_at * 1e9)),
                finished_at=record.state.finished_at,
                health=record.state.health,
            )
            self._table.save(
                live, msgspec.structs.replace(record, state=state, has_run=True, touched=True)
            )
        for mount in record.mounts:
            if mount.type == "volume":
                self._parts.volumes.mount(mount.name, live.id)
        self._endings.watch(live, monitor)

    def _catch_up(self, live: Live) -> None:
        """No monitor answers: it does not run, and if it did it has ended meanwhile."""
        run = self._parts.run(live.id)
        exit = read_exit(run) if run.is_dir() else None
        with live.lock.patiently("its end"):
            record = live.record
            if record.state.running or (exit is not None and not _known(record.state, exit)):
                self._endings.ended(live, exit or Exit(LOST, finished_at=now()))
            elif run.is_dir():
                self._endings.clean(live)

    def restart(self) -> None:
        """Start what its policy wants running and what does not run, once the rest is ready."""
        self._endings.deferring = False
        for live in self._table:
            with live.lock.patiently("its start"):
                if not self._wanted(live):
                    continue
                try:
                    self._endings.start(live)
                except LadingError as error:
                    log.warning('start container "%s" again: %s', live.id, error)

    def _wanted(self, live: Live) -> bool:
        """Whether it is to run, and neither runs nor has its restart scheduled."""
        status = live.record.state.status
        if live.restart is not None:
            return False
        if status is Status.RESTARTING:
            return True
        return status is Status.EXITED and policy.restarts_at_boot(live.record)

    def _sweep(self) -> None:
        parts = self._parts
        known = {live.id for live in self._table}
        parts.filesystems.each(lambda backend: _sweep_snapshots(backend, known), at_start=True)
        for place in (parts.data_root / "containers", parts.exec_root / "containers"):
            for directory in place.iterdir():
                if directory.name not in known:
                    log.info('sweep "%s" of no container', directory)
                    self._sweep_run(directory.name)
                    places.discard(directory)

    def _sweep_run(self, container_id: str) -> None:
        """A container without metadata: let each isolation backend remove what it knows of it."""
        if not re.fullmatch(r"[0-9a-f]{64}", container_id):
            return
        # Backends count on it, whatever is left of the container.
        (self._parts.run(container_id) / "state").mkdir(mode=0o700, parents=True, exist_ok=True)
        for backend in self._parts.isolations.usable():
            try:
                backend.hook.delete(container=self._parts.isolated(container_id))
            except Exception:
                log.exception('sweep container "%s" of %s', container_id, backend.name)


def _sweep_snapshots(backend: Loaded[Filesystem], known: Set[str]) -> None:
    doomed = []
    for snapshot in backend.hook.walk():
        match = _CONTAINER_KEY.fullmatch(snapshot.key)
        if snapshot.kind is Kind.COMMITTED or not match:
            continue
        # A view is what a commit or diff looks at, and whoever did that has died.
        if match[1] not in known or match[3] == "view":
            doomed.append(snapshot.key)
    for key in doomed:
        log.info('sweep snapshot "%s" that nobody uses', key)
        backend.hook.remove(key=key)


def _known(state: State, exit: Exit) -> bool:
    """Whether this exit is in the metadata already."""
    if state.status is Status.CREATED:
        # A failed start leaves a status too, which nobody has to be told of.
        return True
    return nanoseconds(state.finished_at) >= nanoseconds(exit.finished_at)
