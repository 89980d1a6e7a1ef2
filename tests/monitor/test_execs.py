"""More processes in a running container."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from lading.errors import Conflict, NotFound, StartFailed
from lading.monitor import AttachSpec, Monitor, MonitorEvent

BOTH = AttachSpec("exec")


@pytest.fixture
def running(containers: Any) -> Monitor:
    monitor: Monitor = containers.run("sleep", "60")
    return monitor


def shell(text: str, **members: Any) -> dict[str, Any]:
    return {"args": ["sh", "-c", text], **members}


def test_streams_and_code(running: Monitor, frames: Any) -> None:
    started = running.exec("e1", shell("echo out; echo err >&2; exit 9"), attach=BOTH)
    assert started.stream is not None
    assert frames(started.stream) == {1: b"out\n", 2: b"err\n"}
    assert running.exec_wait("e1", 10).code == 9


def test_an_event_tells_of_the_end(running: Monitor, wait_until: Any) -> None:
    events: list[MonitorEvent] = []
    running.on_event(events.append)
    running.exec("e1", shell("exit 2"))
    wait_until(lambda: bool(events))
    assert (events[0].kind, events[0].exec_id) == ("exec-exit", "e1")
    assert events[0].exit is not None
    assert events[0].exit.code == 2


def test_input(running: Monitor, frames: Any) -> None:
    spec = AttachSpec("exec", stdin=True)
    stream = running.exec("e1", shell("cat"), stdin=True, attach=spec).stream
    assert stream is not None
    stream.sendall(b"text")
    stream.shutdown(socket.SHUT_WR)
    assert frames(stream)[1] == b"text"


def test_a_terminal(running: Monitor, everything: Any) -> None:
    started = running.exec("e1", shell("stty size", terminal=True), attach=BOTH)
    assert everything(started.stream) == b"0 0\r\n"


def test_a_client_s_own_socket(running: Monitor, frames: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            running.exec("e1", shell("echo hi"), attach=BOTH, client=theirs.fileno())
        assert frames(ours)[1] == b"hi\n"


def test_a_program_that_is_not_there(running: Monitor) -> None:
    with pytest.raises(StartFailed) as failure:
        running.exec("e1", {"args": ["/no/such"]}, attach=BOTH)
    assert failure.value.errno == 2
    assert running.state().status == "running"


def test_several_at_a_time(running: Monitor) -> None:
    pids = {n: running.exec(f"e{n}", shell(f"read x; exit {n}"), stdin=True).pid for n in range(5)}
    assert running.state().execs == {f"e{n}": pid for n, pid in pids.items()}
    for n in range(5):
        running.close_stdin(f"e{n}")
        assert running.exec_wait(f"e{n}", 10).code == n


def test_an_id_is_taken_once(running: Monitor) -> None:
    running.exec("e1", shell("read x"), stdin=True)
    with pytest.raises(Conflict, match="e1"):
        running.exec("e1", shell("true"))
    running.close_stdin("e1")


def test_attach_to_a_running_exec(running: Monitor, frames: Any) -> None:
    running.exec("e1", shell("read x; echo $x"), stdin=True, attach=AttachSpec("x", stdout=False))
    with running.attach(exec_id="e1", stdin=True) as stream:
        stream.sendall(b"hello\n")
        assert frames(stream)[1] == b"hello\n"
    with pytest.raises(NotFound):
        running.attach(exec_id="e2")


def test_a_background_process_does_not_hold_the_end_up(running: Monitor, frames: Any) -> None:
    started = running.exec("e1", shell("sleep 20 & echo $!"), attach=BOTH)
    assert started.stream is not None
    child = int(frames(started.stream)[1])
    assert running.exec_wait("e1", 10).code == 0
    os.kill(child, 9)


def test_codes_are_known_after_a_reconnect(containers: Any) -> None:
    launch = containers.define("sleep", "60")
    first = containers.launch(launch)
    first.exec("e1", shell("exit 6"))
    first.exec_wait("e1", 10)
    with_state = Monitor.connect(launch.run)
    assert with_state.exec_wait("e1", 0).code == 6
    with_state.close()


def test_large_requests(running: Monitor, frames: Any) -> None:
    env = [f"V{n}={'x' * 1000}" for n in range(600)]
    started = running.exec(
        "e1", shell("env | wc -c", env=[*env, "PATH=/usr/bin:/bin"]), attach=BOTH
    )
    assert started.stream is not None
    assert int(frames(started.stream)[1]) > 600_000
