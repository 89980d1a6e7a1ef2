"""What follows when a container's process has ended: state, waiters, clean-up, restart, removal."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from lading.containers import health, places, policy, streams, tell
from lading.containers.execs import Execs
from lading.containers.health import HealthCheck
from lading.containers.parts import Parts
from lading.containers.records import State, Status
from lading.containers.removal import Remover
from lading.containers.start import Starter, release_mounts
from lading.containers.table import Live, Table
from lading.errors import LadingError
from lading.monitor import Exit, Monitor, MonitorEvent
from lading.store.clock import now

log = logging.getLogger(__name__)

#: What is known of an end that nobody has seen: the monitor was lost, or the host went down.
LOST = 137

#: So many ends are dealt with at a time, unless that takes some of them this long, in seconds.
_AT_ONCE = 16
_PATIENCE = 2.0
#: How long the end of the daemon waits for all of them.
_CLOSING_SECONDS = 5.0


class Endings:
    """Deals with the ends of all containers, in threads of its own."""

    def __init__(
        self, parts: Parts, table: Table, starter: Starter, remover: Remover, execs: Execs
    ) -> None:
        self._parts = parts
        self._table = table
        self._starter = starter
        self._remover = remover
        self._execs = execs
        self._slots = threading.Semaphore(_AT_ONCE)
        self._threads: set[threading.Thread] = set()
        self._closing = False
        #: Set while the daemon starts: nothing is restarted before the networks stand.
        self.deferring = False

    def watch(self, live: Live, monitor: Monitor) -> None:
        """See to the end of a container that has just been launched or found running."""

        def on_event(event: MonitorEvent) -> None:
            # Called from the thread that serves all monitors: the work is done elsewhere.
            if event.kind in ("exit", "lost"):
                self._submit(live, monitor, event.exit or Exit(LOST, finished_at=now()))
            elif event.kind == "oom":
                tell.event(self._parts.events, live.record, "oom")
            elif event.kind == "detach":
                tell.event(self._parts.events, live.record, "detach")
            elif event.kind == "exec-exit" and event.exit is not None:
                self._execs.ended(live, event.exec_id, event.exit)

        monitor.on_event(on_event)
        if health.has_check(live.record):
            live.health = HealthCheck(self._parts, self._table, self._execs, live)

    def _submit(self, live: Live, monitor: Monitor, exit: Exit) -> None:
        if self._closing:
            # The daemon is going; the next one reads the exit status from its file.
            log.debug('end of container "%s" left to the next daemon', live.id)
            return
        thread = threading.Thread(
            target=self._run, args=(live, monitor, exit), name="ending", daemon=True
        )
        self._threads.add(thread)
        thread.start()

    def _run(self, live: Live, monitor: Monitor, exit: Exit) -> None:
        # Backends that hang in the ends of some containers hold up no others.
        has_slot = self._slots.acquire(timeout=_PATIENCE)
        try:
            self._deal_with(live, monitor, exit)
        finally:
            if has_slot:
                self._slots.release()
            self._threads.discard(threading.current_thread())

    def _deal_with(self, live: Live, monitor: Monitor, exit: Exit) -> None:
        about = {"container.id": live.id}
        try:
            with (
                live.lock.patiently("its end"),
                self._parts.operations.of("end of a container", about),
            ):
                if live.monitor is monitor:
                    self.ended(live, exit)
        except Exception:
            log.exception('end of container "%s"', live.id)

    def ended(self, live: Live, exit: Exit) -> None:
        """The whole of it; the caller holds the container's lock."""
        live.ending = True
        try:
            self._end(live, exit)
        finally:
            with live.settled:
                live.ending = False
                live.settled.notify_all()

    def _end(self, live: Live, exit: Exit) -> None:
        record = live.record
        monitor, live.monitor = live.monitor, None
        restarts = policy.restarts(record, exit.code) and not live.held
        removes = record.host_config.auto_remove and not restarts and not live.held
        state = State(
            status=Status.RESTARTING if restarts else Status.EXITED,
            exit_code=exit.code,
            oom_killed=exit.oom_killed,
            started_at=record.state.started_at,
            finished_at=exit.finished_at or now(),
            health=record.state.health,
        )
        if removes:
            # It goes in a moment; until then memory is enough.
            self._table.set_state(live, state)
        else:
            self._table.save_state(live, state)
        self._tell(live, exit)
        # Also when it is started anew: an end is what they wait for.
        for wait in live.exits:
            wait.resolve(exit.code)
        live.exits.clear()
        self.clean(live)
        if monitor is not None:
            monitor.close()
        if restarts and not (self._closing or self.deferring):
            self._schedule(live)
        elif removes:
            self._remover.remove(live, volumes=True)

    def _tell(self, live: Live, exit: Exit) -> None:
        if live.health is not None:
            live.health.stop()
            live.health = None
        for follower in tuple(live.followers):
            follower.finish()
        self._execs.container_ended(live.id)
        ran = int(time.monotonic() - live.started) if live.started else 0
        tell.event(
            self._parts.events,
            live.record,
            "die",
            exitCode=str(exit.code),
            execDuration=str(ran),
        )

    def clean(self, live: Live) -> None:
        """Release what only a running container has; each step may be repeated."""
        parts, record = self._parts, live.record
        steps: dict[str, Callable[[], object]] = {
            "isolation": lambda: parts.isolations.get(record.isolation).hook.delete(
                container=parts.isolated(record.id)
            ),
            "network": lambda: parts.networks.release(record.id),
            "mounts": lambda: release_mounts(parts, record),
            "run directory": lambda: places.discard(parts.run(record.id)),
        }
        for name, step in steps.items():
            try:
                with live.lock.doing(f"the release of its {name}"):
                    step()
            except Exception:
                log.exception('release the %s of container "%s"', name, record.id)

    def _schedule(self, live: Live) -> None:
        ran = time.monotonic() - live.started
        live.delay = policy.next_delay(live.delay, ran)
        timer = threading.Timer(live.delay, self._restart, [live])
        timer.daemon = True
        live.restart = timer
        timer.start()

    def _restart(self, live: Live) -> None:
        with live.lock.patiently("its restart"):
            if live.restart is None or live.record.state.status is not Status.RESTARTING:
                return
            live.restart = None
            changed = msgspec.structs.replace(
                live.record, restart_count=live.record.restart_count + 1
            )
            self._table.save(live, changed, durable=False)
            try:
                self.start(live)
            except LadingError as error:
                log.warning('restart of container "%s": %s', live.id, error)

    def start(self, live: Live) -> None:
        """Launch and watch; the caller holds the lock. Raises what the launch raises."""
        try:
            monitor = self._starter.launch(live)
        except Exception:
            streams.drop(live)
            if live.record.host_config.auto_remove:
                self._remover.remove(live, volumes=True)
            raise
        self.watch(live, monitor)

    def close(self) -> None:
        """Finish what is being done; containers live on."""
        self._closing = True
        for live in self._table:
            if live.restart is not None:
                live.restart.cancel()
        # A hook that hangs in one keeps it from its end; the next daemon sees what was left to do.
        give_up = time.monotonic() + _CLOSING_SECONDS
        for thread in tuple(self._threads):
            thread.join(max(0, give_up - time.monotonic()))
