"""Acting on containers from outside: start, stop, kill, pause, restart, update, rename, wait."""

from __future__ import annotations

import logging
import math
import signal as posix
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from lading.containers import names, policy, resources, roots, signals, tell
from lading.containers.ending import Endings
from lading.containers.options import Wait
from lading.containers.parts import Parts
from lading.containers.records import Container, State, Status
from lading.containers.removal import Remover
from lading.containers.table import Live, Table
from lading.errors import Conflict, Invalid, LadingError, NotFound, NotModified
from lading.hooks.isolation import Isolation
from lading.model.docker import HostConfig, Resources, Update

log = logging.getLogger(__name__)

STOP_SECONDS = 10

#: How long a killed process may take to be gone, in seconds, before the caller is told so.
KILL_SECONDS = 30.0


#: How often who waits for an end looks whether that is stuck.
LOOK_SECONDS = 1.0


class Control:
    """The verbs."""

    def __init__(self, parts: Parts, table: Table, endings: Endings, remover: Remover) -> None:
        self._parts = parts
        self._table = table
        self._endings = endings
        self._remover = remover

    def start(self, live: Live) -> None:
        """See :meth:`lading.containers.Containers.start`."""
        with live.lock.doing("its start"):
            record = live.record
            status = record.state.status
            if status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if status is Status.RUNNING:
                raise NotModified(f"container {record.id} is running already")
            if status in (Status.REMOVING, Status.DEAD):
                raise Conflict("container is marked for removal and cannot be started")
            _cancel_restart(live)
            live.delay = 0.0
            if record.restart_count or record.manually_stopped:
                live.record = msgspec.structs.replace(
                    record, restart_count=0, manually_stopped=False
                )
            self._endings.start(live)

    def stop(self, live: Live, timeout: int | None, signal: str) -> None:
        """See :meth:`lading.containers.Containers.stop`."""
        number = signals.number(signal or live.record.config.stop_signal or "SIGTERM")
        with live.lock:
            if live.record.state.status is Status.RESTARTING:
                self._give_up_restart(live)
                return
            if not live.record.state.running:
                raise NotModified(f"container {live.id} is not running")
            self._note_manual_stop(live)
        self._stop(live, self._patience(live, timeout), number)
        tell.event(self._parts.events, live.record, "stop")

    def _patience(self, live: Live, timeout: int | None) -> int:
        if timeout is not None:
            return timeout
        own = live.record.config.stop_timeout
        return STOP_SECONDS if own is None else own

    def _stop(self, live: Live, timeout: int, number: int) -> None:
        """Signal, wait, kill; returns when the end has been dealt with."""
        monitor = live.monitor
        if monitor is None:
            return
        self._signal(live, number)
        if not self._ends(live, monitor, None if timeout < 0 else float(timeout)):
            self._signal(live, posix.SIGKILL)
            if not self._ends(live, monitor, KILL_SECONDS):
                raise _endless(live, "stop")

    def _ends(self, live: Live, monitor: object, timeout: float | None) -> bool:
        """Wait until its end has been dealt with; False when that takes too long."""
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        with live.settled:
            while live.monitor is monitor or live.ending:
                left = give_up - time.monotonic()
                if left <= 0 or live.lock.overdue:
                    return False
                live.settled.wait(min(left, LOOK_SECONDS))
        return True

    def _signal(self, live: Live, number: int) -> None:
        record = live.record
        hook = self._hook(record)
        isolated = self._parts.isolated(record.id)
        # Told first, so that it is always seen before the end that it brings about.
        tell.event(self._parts.events, record, "kill", signal=str(number))
        try:
            hook.signal(container=isolated, signal=number, everyone=False)
            if record.state.status is Status.PAUSED:
                # A frozen process acts on no signal but SIGKILL, and some kernels not on that.
                hook.resume(container=isolated)
        except NotFound:
            return

    def _hook(self, record: Container) -> Isolation:
        return self._parts.isolations.get(record.isolation).hook

    def _note_manual_stop(self, live: Live) -> None:
        if not live.record.manually_stopped:
            # Only the policy "unless-stopped" needs to know after a crash of the host.
            durable = live.record.host_config.restart_policy.name not in ("", "no")
            changed = msgspec.structs.replace(live.record, manually_stopped=True)
            if durable:
                self._table.save(live, changed)
            else:
                live.record = changed

    def _give_up_restart(self, live: Live) -> None:
        _cancel_restart(live)
        self._note_manual_stop(live)
        state = msgspec.structs.replace(live.record.state, status=Status.EXITED)
        self._table.save_state(live, state)
        for wait in live.exits:
            wait.resolve(state.exit_code)
        live.exits.clear()
        if live.record.host_config.auto_remove:
            self._remover.remove(live, volumes=True)

    def restart(self, live: Live, timeout: int | None, signal: str) -> None:
        """See :meth:`lading.containers.Containers.restart`."""
        number = signals.number(signal or live.record.config.stop_signal or "SIGTERM")
        with _held(live):
            with live.lock:
                if live.record.state.status is Status.PAUSED:
                    self.unpause(live)
                if live.record.state.status is Status.RESTARTING:
                    _cancel_restart(live)
                    state = msgspec.structs.replace(live.record.state, status=Status.EXITED)
                    self._table.set_state(live, state)
                running = live.record.state.running
            if running:
                self._stop(live, self._patience(live, timeout), number)
        try:
            self.start(live)
        except NotModified:
            # Somebody else has started it meanwhile, which is what was wanted.
            pass
        tell.event(self._parts.events, live.record, "restart")

    def kill(self, live: Live, signal: str) -> None:
        """See :meth:`lading.containers.Containers.kill`."""
        number = signals.number(signal or "SIGKILL")
        with live.lock:
            if live.record.state.status is Status.RESTARTING:
                self._give_up_restart(live)
                return
            monitor = live.monitor
            if not live.record.state.running or monitor is None:
                raise Conflict(
                    f"Cannot kill container: {live.record.name}: Container {live.id} is not running"
                )
            self._note_manual_stop(live)
        self._signal(live, number)
        if number == posix.SIGKILL:
            self._ends(live, monitor, KILL_SECONDS)

    def pause(self, live: Live) -> None:
        """See :meth:`lading.containers.Containers.pause`."""
        with live.lock.doing("a pause"):
            record = live.record
            if record.state.status is Status.PAUSED:
                raise Conflict(f"Container {record.id} is already paused")
            self._require_running(live)
            self._parts.isolations.get(record.isolation).require("pause")
            self._hook(record).pause(container=self._parts.isolated(record.id))
            self._table.save_state(
                live, msgspec.structs.replace(record.state, status=Status.PAUSED)
            )
        tell.event(self._parts.events, record, "pause")

    def unpause(self, live: Live) -> None:
        """See :meth:`lading.containers.Containers.unpause`."""
        with live.lock.doing("an unpause"):
            record = live.record
            if record.state.status is not Status.PAUSED:
                raise Conflict(f"Container {record.id} is not paused")
            self._hook(record).resume(container=self._parts.isolated(record.id))
            self._table.save_state(
                live, msgspec.structs.replace(record.state, status=Status.RUNNING)
            )
        tell.event(self._parts.events, record, "unpause")

    def _require_running(self, live: Live) -> None:
        state = live.record.state
        if state.status is Status.RESTARTING:
            raise Conflict(
                f"Container {live.id} is restarting, wait until the container is running"
            )
        if not state.running:
            raise Conflict(f"Container {live.id} is not running")

    def rename(self, live: Live, name: str) -> None:
        """See :meth:`lading.containers.Containers.rename`."""
        if not name:
            raise Invalid("Neither old nor new names may be empty")
        new = names.check_name(name)
        with live.lock:
            old = live.record.name
            if new == old:
                raise Invalid("Renaming a container with the same name as its current name")
            self._table.rename(live, new)
            self._parts.networks.rename(live.id, new)
        tell.event(self._parts.events, live.record, "rename", oldName=f"/{old}")

    def update(self, live: Live, update: Update) -> Sequence[str]:
        """See :meth:`lading.containers.Containers.update`."""
        with live.lock.doing("an update"):
            record = live.record
            if record.state.status in (Status.REMOVING, Status.DEAD):
                raise Conflict(f"Cannot update container {record.id}: it is marked for removal")
            host = updated(record.host_config, update)
            resources.check(host)
            policy.check(host.restart_policy, host)
            changes = resources.oci(changed_resources(update, host))
            if record.state.running and changes:
                backend = self._parts.isolations.get(record.isolation)
                backend.require("update")
                backend.hook.update(container=self._parts.isolated(record.id), resources=changes)
            self._table.save(live, msgspec.structs.replace(record, host_config=host))
        tell.event(self._parts.events, live.record, "update")
        return ()

    def remove(self, live: Live, *, force: bool, volumes: bool) -> None:
        """See :meth:`lading.containers.Containers.remove`."""
        self._parts.veto("remove", tell.request(live.record))
        give_up = time.monotonic() + KILL_SECONDS
        while True:
            with live.lock.doing("its removal"):
                if self._table.lookup(live.id) is None:
                    # Its own --rm was faster than this removal.
                    return
                self._check_removable(live, force=force)
                _cancel_restart(live)
                if not live.record.state.running:
                    self._remover.remove(live, volumes=volumes or _auto(live))
                    return
                monitor = live.monitor
                self._note_manual_stop(live)
            self._signal(live, posix.SIGKILL)
            self._ends(live, monitor, max(0.0, give_up - time.monotonic()))
            if live.lock.overdue or time.monotonic() > give_up:
                raise _endless(live, "remove")

    def _check_removable(self, live: Live, *, force: bool) -> None:
        state, name = live.record.state, live.record.name
        if place := roots.shown_on(self._parts, live.id):
            raise Conflict(
                f'cannot remove container "/{name}": it is mounted on {place}',
                hint=f"lading unmount {name}",
            )
        if force:
            return
        if state.status is Status.PAUSED:
            raise Conflict(
                f'cannot remove container "/{name}": container is paused and must be unpaused first'
            )
        if state.running or state.status is Status.RESTARTING:
            what = "restarting" if state.status is Status.RESTARTING else "running"
            raise Conflict(
                f'cannot remove container "/{name}": container is {what}: stop the container '
                "before removing or force remove"
            )

    def wait(self, live: Live, condition: str) -> Wait:
        """See :meth:`lading.containers.Containers.wait`."""
        wait = Wait()
        with live.lock:
            state: State = live.record.state
            if condition in ("", "not-running"):
                if state.running or state.status is Status.RESTARTING:
                    live.exits.append(wait)
                else:
                    wait.resolve(state.exit_code)
            elif condition == "next-exit":
                live.exits.append(wait)
            elif condition == "removed":
                if self._table.lookup(live.id) is None:
                    wait.resolve(state.exit_code)
                else:
                    live.removals.append(wait)
            else:
                raise Invalid(
                    f'invalid condition: "{condition}"', hint="not-running, next-exit or removed"
                )
        return wait


def _endless(live: Live, what: str) -> LadingError:
    """It did not come to its end in time."""
    if live.lock.held:
        return live.lock.busy()
    return LadingError(f'{what} container "{live.id}": the process did not end after SIGKILL')


def _auto(live: Live) -> bool:
    return live.record.host_config.auto_remove


def _cancel_restart(live: Live) -> None:
    if live.restart is not None:
        live.restart.cancel()
        live.restart = None


@contextmanager
def _held(live: Live) -> Iterator[None]:
    """Keep the end of a container from restarting or removing it by itself."""
    live.held = True
    try:
        yield
    finally:
        live.held = False


#: What ``update`` may change.
UPDATABLE = (
    "blkio_weight",
    "cpu_shares",
    "cpu_period",
    "cpu_quota",
    "cpu_realtime_period",
    "cpu_realtime_runtime",
    "cpuset_cpus",
    "cpuset_mems",
    "memory",
    "memory_swap",
    "memory_reservation",
    "nano_cpus",
    "pids_limit",
)


def updated(host: HostConfig, update: Update) -> HostConfig:
    """The host config with what the update says. Raises Conflict for contradictions."""
    changes: dict[str, Any] = {
        name: value for name in UPDATABLE if (value := getattr(update, name)) not in (0, "", None)
    }
    if update.restart_policy is not None and update.restart_policy.name:
        changes["restart_policy"] = update.restart_policy
    if "nano_cpus" in changes:
        if host.cpu_period or host.cpu_quota:
            raise Conflict(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been "
                "set"
            )
    elif host.nano_cpus and {"cpu_period", "cpu_quota"} & set(changes):
        raise Conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"
        )
    if changes.get("memory", 0) > host.memory_swap > 0 and "memory_swap" not in changes:
        raise Invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    return msgspec.structs.replace(host, **changes)


def changed_resources(update: Update, host: HostConfig) -> Resources:
    """Only what changes now, so that the kernel keeps the rest."""
    changes = {
        name: getattr(host, name)
        for name in UPDATABLE
        if getattr(update, name) not in (0, "", None)
    }
    if "memory" in changes and host.memory_swap:
        changes["memory_swap"] = host.memory_swap
    return Resources(**changes)
