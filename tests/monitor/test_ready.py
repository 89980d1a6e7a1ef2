"""The monitor that is forked ahead of its request."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from lading.monitor import Launch, Spawner, process, starter, wire

Wait = Callable[[Callable[[], bool]], None]


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def ready(spawner: int) -> list[int]:
    """The monitor that waits and its starter; empty as long as they are not both there."""
    pair = [p for m in children(spawner) for p in (m, *children(m))]
    names = [Path(f"/proc/{pid}/comm").read_text() for pid in pair]
    return pair if names == ["lading-ready\n"] * 2 else []


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids)


def test_it_takes_the_next_request_and_another_one_its_place(
    containers: Any, spawner: Spawner, wait_until: Wait
) -> None:
    wait_until(lambda: bool(ready(spawner.pid)))
    first, _ = ready(spawner.pid)
    monitor = containers.run("/bin/true")
    assert monitor.monitor_pid == first
    assert monitor.wait(30).code == 0
    wait_until(lambda: first not in ready(spawner.pid) and bool(ready(spawner.pid)))


def test_when_it_was_killed_a_fresh_one_serves(
    containers: Any, spawner: Spawner, wait_until: Wait
) -> None:
    wait_until(lambda: bool(ready(spawner.pid)))
    pair = ready(spawner.pid)
    for pid in pair:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pair))
    assert containers.run("/bin/true").wait(30).code == 0


def test_it_ends_with_the_spawner(spawner_of_its_own: Spawner, wait_until: Wait) -> None:
    wait_until(lambda: bool(ready(spawner_of_its_own.pid)))
    pair = ready(spawner_of_its_own.pid)
    spawner_of_its_own.close()
    wait_until(lambda: gone(pair))


def test_a_spawner_that_was_killed_is_replaced(
    containers: Any,
    spawner_of_its_own: Spawner,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Wait,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    spawner = spawner_of_its_own
    running = containers.launch_by(spawner, "/bin/sleep", "1000")
    first = spawner.pid
    os.kill(first, signal.SIGKILL)
    # A zombie, whose sockets are closed: it stays until it has been waited for.
    wait_until(lambda: ") Z " in Path(f"/proc/{first}/stat").read_text())
    assert containers.launch_by(spawner, "/bin/true").wait(30).code == 0
    assert spawner.pid != first
    assert running.state().status == "running"


def test_the_daemon_hears_of_the_container_before_of_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A monitor may tell of an end as soon as it knows of the container."""
    request, source = socket.socketpair()
    daemon, connection = socket.socketpair()
    birth = {"container": "c", "pid": 1, "started_at": 1.0}

    def ends_at_once(*_: object) -> None:
        wire.send(connection, {"event": "exit"})

    monkeypatch.setattr(starter, "_launch", lambda *_: (birth, []))
    monkeypatch.setattr(wire, "send_to_kin", ends_at_once)
    launch = Launch("c", "plain", tmp_path, tmp_path)
    wire.send(daemon, {"launch": launch.to_wire(), "fds": []})
    socket.send_fds(request, [b"x"], [connection.fileno()])
    name = Path("/proc/self/comm").read_text()
    try:
        starter.launch({"plain": MagicMock()}, source, MagicMock())
    finally:
        process.set_name(name.strip())
    receiver = wire.Receiver(daemon)
    assert [set(receiver.receive()[0]) & {"container", "event"} for _ in range(2)] == [
        {"container"},
        {"event"},
    ]
