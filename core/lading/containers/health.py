"""Health checks: a command in the container, again and again, while it runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time

import msgspec

from lading.containers import tell
from lading.containers.execs import Execs
from lading.containers.parts import Parts
from lading.containers.records import Container, Health, Probe, Status
from lading.containers.table import Live, Table
from lading.errors import LadingError
from lading.model.docker import ExecConfig, HealthConfig
from lading.store.clock import timestamp

log = logging.getLogger(__name__)

SECOND = 1_000_000_000
DEFAULT_INTERVAL = 30 * SECOND
DEFAULT_TIMEOUT = 30 * SECOND
DEFAULT_START_INTERVAL = 5 * SECOND
DEFAULT_RETRIES = 3
LOG_LENGTH = 5
OUTPUT_LENGTH = 4096


def command(config: HealthConfig | None, shell: list[str] | None) -> list[str]:
    """What to run; empty when there is no check."""
    if config is None or not config.test or config.test[0] == "NONE":
        return []
    if config.test[0] == "CMD-SHELL":
        return [*(shell or ["/bin/sh", "-c"]), *config.test[1:2]]
    return list(config.test[1:])


def has_check(container: Container) -> bool:
    """Whether it has one."""
    return bool(command(container.config.healthcheck, container.config.shell))


class HealthCheck:
    """The thread that checks one container, from its start to its end."""

    def __init__(self, parts: Parts, table: Table, execs: Execs, live: Live) -> None:
        self._parts = parts
        self._table = table
        self._execs = execs
        self._live = live
        self._stopped = threading.Event()
        self._config = live.record.config.healthcheck or HealthConfig()
        self._began = time.monotonic()
        thread = threading.Thread(target=self._run, name=f"health-{live.id[:12]}", daemon=True)
        thread.start()

    def stop(self) -> None:
        """Check no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval()):
            if self._live.record.state.status is Status.PAUSED:
                continue
            try:
                probe = self._probe()
            except Exception:
                log.exception('health check of container "%s"', self._live.id)
                continue
            if not self._stopped.is_set():
                self._note(probe)

    def _starting(self) -> bool:
        health = self._live.record.state.health
        passed = time.monotonic() - self._began
        return (
            health is not None
            and health.status == "starting"
            and passed * SECOND < self._config.start_period
        )

    def _interval(self) -> float:
        nanoseconds = self._config.interval or DEFAULT_INTERVAL
        if self._starting():
            nanoseconds = min(nanoseconds, self._config.start_interval or DEFAULT_START_INTERVAL)
        return nanoseconds / SECOND

    def _probe(self) -> Probe:
        record = self._live.record
        start = time.time_ns()
        timeout = (self._config.timeout or DEFAULT_TIMEOUT) / SECOND
        config = ExecConfig(
            cmd=command(record.config.healthcheck, record.config.shell),
            attach_stdout=True,
            attach_stderr=True,
            tty=True,
        )
        try:
            code, output = self._execute(config, timeout)
        except (LadingError, OSError) as error:
            code, output = -1, str(error)
        return Probe(timestamp(start), timestamp(time.time_ns()), code, output)

    def _execute(self, config: ExecConfig, timeout: float) -> tuple[int, str]:
        give_up = time.monotonic() + timeout
        exec_id = self._execs.create(self._live, config)
        stream = self._execs.start(exec_id, detach=False, tty=None, size=None)
        if stream is None:
            return -1, ""
        output = bytearray()
        with stream.connect() as connection:
            if not _read(connection, output, give_up):
                self._kill(exec_id)
                return -1, f"Health check exceeded timeout ({_seconds(timeout)})"
        code = self._execs.wait(exec_id, max(0.1, give_up - time.monotonic()))
        return code, bytes(output[:OUTPUT_LENGTH]).decode(errors="replace")

    def _kill(self, exec_id: str) -> None:
        """A check that hangs is not left running."""
        pid = self._execs.get(exec_id).pid
        if pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _note(self, probe: Probe) -> None:
        live = self._live
        with live.lock.patiently("a health check"):
            state = live.record.state
            if state.health is None or not state.running:
                return
            health = judged(state.health, probe, self._config, starting=self._starting())
            changed = health.status != state.health.status
            new = msgspec.structs.replace(state, health=health)
            if changed:
                self._table.save_state(live, new)
            else:
                self._table.set_state(live, new)
        if changed:
            tell.event(self._parts.events, live.record, f"health_status: {health.status}")


def judged(health: Health, probe: Probe, config: HealthConfig, *, starting: bool) -> Health:
    """What one more probe makes of the health."""
    log_rows = (*health.log, probe)[-LOG_LENGTH:]
    if probe.exit_code == 0:
        return Health("healthy", 0, log_rows)
    if starting:
        return Health(health.status, health.failing_streak, log_rows)
    streak = health.failing_streak + 1
    unhealthy = streak >= (config.retries or DEFAULT_RETRIES)
    return Health("unhealthy" if unhealthy else health.status, streak, log_rows)


def _read(connection: socket.socket, into: bytearray, give_up: float) -> bool:
    """Read to the end of the stream; False when the time is over first."""
    while True:
        connection.settimeout(max(0.001, give_up - time.monotonic()))
        try:
            data = connection.recv(4096)
        except TimeoutError:
            return False
        if not data:
            return True
        if len(into) < OUTPUT_LENGTH:
            into += data


def _seconds(timeout: float) -> str:
    return f"{timeout:g}s"
