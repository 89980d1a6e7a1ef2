"""The life of a container beside its monitor."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lading.errors import Conflict, NotFound, StartFailed, Unavailable
from lading.monitor import AttachSpec, LogConfig, Monitor, MonitorEvent, Spawner, read_exit


def logged(path: Path) -> list[tuple[str, str]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [(r["stream"], r["log"]) for r in records]


def test_output_is_logged_and_the_code_is_told(containers: Any) -> None:
    launch = containers.define("sh", "-c", "echo out; echo err >&2; printf rest; exit 7")
    found = containers.launch(launch).wait(60)
    assert (found.code, found.signal, found.oom_killed) == (7, 0, False)
    assert sorted(logged(launch.log.path)) == [
        ("stderr", "err\n"),
        ("stdout", "out\n"),
        ("stdout", "rest"),
    ]
    record = json.loads(launch.log.path.read_text().splitlines()[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", record["time"])


def test_the_status_is_on_disk_when_it_is_told(containers: Any) -> None:
    launch = containers.define("sh", "-c", "exit 3")
    found = containers.launch(launch).wait(60)
    assert read_exit(launch.run) == found


@pytest.mark.parametrize("left", [b"", b'{"code": 0, "sig', b"\0" * 64])
def test_what_a_host_that_lost_its_power_left_is_no_status(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "exit.json").write_bytes(left)
    assert read_exit(tmp_path) is None


def test_a_signal_gives_128_and_its_number(containers: Any) -> None:
    monitor = containers.run("sh", "-c", "kill -TERM $$; sleep 10")
    found = monitor.wait(60)
    assert (found.code, found.signal) == (143, 15)


def test_oom_is_seen_in_the_backend_s_statistics(containers: Any) -> None:
    launch = containers.define("sh", "-c", "exit 137")
    (launch.run / "state").mkdir()
    (launch.run / "state" / "oom").touch()
    assert containers.launch(launch).wait(60).oom_killed


def test_a_program_that_is_not_there(containers: Any) -> None:
    launch = containers.define("/no/such/program")
    with pytest.raises(StartFailed) as failure:
        containers.launch(launch)
    assert failure.value.errno == 2
    found = read_exit(launch.run)
    assert found is not None
    assert found.code == 127
    assert not (launch.run / "monitor.sock").exists()


def test_a_program_that_is_not_there_when_started_later(containers: Any) -> None:
    launch = containers.define("/no/such/program", start=False)
    monitor = containers.launch(launch)
    with pytest.raises(StartFailed) as failure:
        monitor.start()
    assert failure.value.errno == 2
    assert monitor.wait(60).code == 127
    assert read_exit(launch.run) == monitor.wait()


def test_killed_before_its_start(containers: Any) -> None:
    monitor = containers.run("true", start=False)
    os.kill(monitor.pid, 9)
    assert monitor.wait(60).code == 137


def test_a_backend_that_failed_to_load(containers: Any, spawner: Spawner) -> None:
    assert "no_such_module" in spawner.failed["broken"]
    launch = containers.define("true")
    with pytest.raises(Unavailable, match="broken"):
        spawner.monitor(
            type(launch)("x", "broken", launch.bundle, launch.run, log=LogConfig("none"))
        )


def test_created_waits_for_the_start(containers: Any) -> None:
    launch = containers.define("sh", "-c", "echo ran", start=False)
    monitor = containers.launch(launch)
    assert monitor.state().status == "created"
    assert logged(launch.log.path) == []
    monitor.start()
    monitor.wait(60)
    assert logged(launch.log.path) == [("stdout", "ran\n")]


def test_a_second_start_is_a_conflict(containers: Any) -> None:
    monitor = containers.run("sleep", "60")
    with pytest.raises(Conflict):
        monitor.start()


def test_events_from_before_the_callback_come_too(containers: Any) -> None:
    monitor = containers.run("true")
    monitor.wait(60)
    events: list[MonitorEvent] = []
    monitor.on_event(events.append)
    assert [(e.kind, e.exit) for e in events] == [("exit", monitor.wait())]


def test_a_killed_monitor_is_reported_lost(containers: Any) -> None:
    monitor = containers.run("sleep", "60")
    os.kill(monitor.monitor_pid, 9)
    with pytest.raises(Unavailable, match="lost"):
        monitor.wait(60)
    os.kill(monitor.pid, 9)


def test_the_process_sees_three_descriptors_and_plain_signals(containers: Any) -> None:
    held = socket.socket()
    code = (
        "import os,json; s=open('/proc/self/status').read();"
        "print(json.dumps([sorted(int(f) for f in os.listdir('/proc/self/fd')), os.getcwd(),"
        "[l.split()[1] for l in s.splitlines() if l.startswith(('SigBlk','SigIgn'))]]))"
    )
    launch = containers.define("sh", "-c", 'exec "$0" -S -c "$1"', sys.executable, code)
    with held:
        containers.launch(launch, {"hold-1": held.fileno()}).wait(60)
    descriptors, directory, signals = json.loads(logged(launch.log.path)[0][1])
    assert len(descriptors) == 4  # 0, 1, 2 and the one of the directory that it lists
    assert descriptors[:3] == [0, 1, 2]
    assert directory == "/"
    assert int(signals[0], 16) == 0
    # Python itself ignores SIGPIPE and SIGXFSZ.
    assert int(signals[1], 16) == (1 << 12) | (1 << 24)


def test_held_descriptors_close_with_the_container(containers: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        monitor = containers.launch(
            containers.define("cat", open_stdin=True), {"hold-p": theirs.fileno()}
        )
        theirs.close()
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        monitor.close_stdin()
        monitor.wait(60)
        assert ours.recv(1) == b""


def test_the_interpreter_cannot_be_reached(containers: Any, spawner: Spawner) -> None:
    monitor = containers.run("sleep", "60")
    for pid in (spawner.pid, monitor.monitor_pid):
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
        with pytest.raises(OSError, match=r"[Tt]ext file busy|not permitted"):
            os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    assert Path(f"/proc/{monitor.monitor_pid}/environ").read_bytes().count(b"SECRET") == 0


def test_an_attached_client_misses_nothing_from_the_start(containers: Any, frames: Any) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        containers.launch(
            containers.define("sh", "-c", "echo a; echo b >&2", attach=[AttachSpec("attach-0")]),
            {"attach-0": theirs.fileno()},
        )
    assert frames(ours) == {1: b"a\n", 2: b"b\n"}
    ours.close()


def test_reconnect_after_the_connection_was_given_up(containers: Any) -> None:
    launch = containers.define("cat", open_stdin=True)
    first = containers.launch(launch)
    first.close()
    again = Monitor.connect(launch.run)
    containers.monitors.append(again)
    assert (again.pid, again.started_at) == (first.pid, first.started_at)
    again.close_stdin()
    assert again.wait(60).code == 0
    with pytest.raises(NotFound):
        Monitor.connect(launch.run)


def test_the_same_directory_serves_the_next_life(containers: Any) -> None:
    launch = containers.define("sh", "-c", "exit 4")
    containers.launch(launch).wait(60)
    (launch.bundle / "config.json").write_text(json.dumps({"process": {"args": ["sleep", "60"]}}))
    monitor = containers.launch(launch)
    assert read_exit(launch.run) is None
    assert Monitor.connect(launch.run).pid == monitor.pid


DAEMON = """
import sys, time
from pathlib import Path
from lading.monitor import IsolationSpec, Launch, LogConfig, Spawner
from lading.testing.waiting import holds
root = Path(sys.argv[1])
spec = IsolationSpec("plain", "plain_isolation:PlainIsolation", root / "d", root / "r")
spawner = Spawner.launch(backends=[spec])
launch = Launch("c", "plain", root, root / "run", log=LogConfig("json-file", root / "log"))
print(spawner.monitor(launch).monitor_pid, spawner.pid, flush=True)
time.sleep(60)
"""


def test_a_container_outlives_its_daemon(tmp_path: Path, wait_until: Any) -> None:
    script = "for i in $(seq 100); do echo $i; sleep 0.01; done; exit 5"
    config = {"process": {"args": ["sh", "-c", script]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "run").mkdir(mode=0o700)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert daemon.stdout is not None
    monitor_pid, spawner_pid = map(int, daemon.stdout.readline().split())
    daemon.kill()
    daemon.wait()
    assert daemon.stdout.read() == b""  # nobody else holds the daemon's output
    daemon.stdout.close()
    wait_until(lambda: not Path(f"/proc/{spawner_pid}").exists() or gone(spawner_pid))
    monitor = Monitor.connect(tmp_path / "run")
    assert monitor.monitor_pid == monitor_pid
    assert monitor.wait(30).code == 5
    assert read_exit(tmp_path / "run") == monitor.wait()
    assert [text for _, text in logged(tmp_path / "log")] == [f"{i}\n" for i in range(1, 101)]
    monitor.close()


def gone(pid: int) -> bool:
    return ") Z" in Path(f"/proc/{pid}/stat").read_text()


def test_many_at_a_time(containers: Any, spawner: Spawner) -> None:
    from concurrent.futures import ThreadPoolExecutor

    launches = [containers.define("sh", "-c", f"exit {n}") for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda launch: containers.launch(launch).wait(30).code, launches))
    assert codes == list(range(24))


def test_orphans_hold_nobody_up(containers: Any) -> None:
    monitor = containers.run("sh", "-c", "echo before; sleep 20 & exit 0")
    assert monitor.wait(60).code == 0
    assert logged(containers.log()) == [("stdout", "before\n")]
