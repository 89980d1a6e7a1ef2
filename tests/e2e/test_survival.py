"""The daemon may die; containers, their logs and their exit codes do not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from lading.testing.daemon import Daemon, find_client
from lading.testing.waiting import until

pytestmark = pytest.mark.root

COUNT = "i=0; while :; do echo line $i; i=$((i+1)); usleep 10000; done"


def until_ended(daemon: Daemon, name: str, identity: str) -> None:
    """Wait, with no daemon to ask, until the container's monitor has written down its end."""
    until((daemon.root / "run/containers" / identity / "exit.json").exists, f"{name} does not end")


def lines_of(daemon: Daemon, client: str, name: str) -> list[str]:
    return daemon.client(client, "logs", name).stdout.decode().splitlines()


def test_ten_containers_outlive_a_killed_daemon(scratch_daemon: Daemon, client: str) -> None:
    daemon = scratch_daemon
    for number in range(8):
        daemon.client(client, "run", "-d", "--name", f"c{number}", "busybox", "sleep", "1000")
    daemon.client(client, "run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    words = ["-d", "-i", "--name", "short", "busybox", "sh", "-c", "sleep 1; exit 3"]
    short_id = daemon.client(client, "run", *words).stdout.decode().strip()
    before = len(lines_of(daemon, client, "counter"))
    daemon.kill()
    until_ended(daemon, "short", short_id)
    daemon.start()
    names = daemon.client(client, "ps", "--format", "{{.Names}}").stdout.decode().split()
    assert sorted(names) == sorted([*(f"c{n}" for n in range(8)), "counter"])
    lines = lines_of(daemon, client, "counter")
    assert len(lines) > before
    until(lambda: len(lines_of(daemon, client, "counter")) > len(lines), "it counts no longer")
    lines = lines_of(daemon, client, "counter")
    assert lines == [f"line {n}" for n in range(len(lines))]
    short = json.loads(daemon.client(client, "inspect", "short").stdout)[0]["State"]
    assert (short["Status"], short["ExitCode"]) == ("exited", 3)
    assert daemon.client(client, "exec", "c0", "echo", "works").stdout == b"works\n"
    daemon.client(client, "stop", "-t", "0", "c0")
    assert daemon.client(client, "wait", "c0").stdout == b"137\n"


def test_attach_works_again_after_a_restart(scratch_daemon: Daemon, client: str) -> None:
    daemon = scratch_daemon
    daemon.client(client, "run", "-di", "--name", "cat", "busybox", "head", "-n1")
    daemon.stop()
    daemon.start()
    command = [find_client(client), "-H", daemon.host, "attach", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(b"hello\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"hello\n"
        assert attached.wait(30) == 0


def test_exit_time_is_the_true_one(scratch_daemon: Daemon) -> None:
    daemon = scratch_daemon
    words = ["-d", "--name", "x", "busybox", "sleep", "0.5"]
    identity = daemon.client("lading", "run", *words).stdout.decode().strip()
    daemon.kill()
    until_ended(daemon, "x", identity)
    known = datetime.now(UTC)
    daemon.start()
    state = json.loads(daemon.client("lading", "inspect", "x").stdout)[0]["State"]
    assert state["Status"] == "exited"
    # To microseconds: what is read here knows no nanoseconds.
    started, ended = (
        datetime.fromisoformat(state[k][:26] + "+00:00") for k in ("StartedAt", "FinishedAt")
    )
    assert started + timedelta(seconds=0.4) < ended < known


def test_published_port_still_answers(scratch_daemon: Daemon) -> None:
    daemon = scratch_daemon
    flags = ["-d", "--name", "web", "-p", "127.0.0.1::80"]
    daemon.client("lading", "run", *flags, "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
    url = "http://" + daemon.client("lading", "port", "web", "80").stdout.decode().split()[0]
    daemon.kill()
    daemon.start()
    shown = daemon.client(
        "lading", "run", "--rm", "--net", "host", "busybox", "wget", "-qO-", f"{url}/passwd"
    )
    assert b"root:x:0:0" in shown.stdout


def test_second_daemon_on_the_same_root_is_refused(scratch_daemon: Daemon) -> None:
    second = Daemon(root=scratch_daemon.root)
    second.socket = scratch_daemon.root / "s2"
    with pytest.raises(RuntimeError, match=r"(?i)another|lock|in use"):
        second.start()


def test_policy_always_comes_back_after_stop_of_everything(scratch_daemon: Daemon) -> None:
    daemon = scratch_daemon
    daemon.client(
        "lading", "run", "-d", "--restart", "always", "--name", "a", "busybox", "sleep", "1000"
    )
    pid = json.loads(daemon.client("lading", "inspect", "a").stdout)[0]["State"]["Pid"]
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    until(lambda: daemon.client("lading", "ps", "-q").stdout, "it did not come back")


def test_an_exec_keeps_its_exit_code_over_a_restart(scratch_daemon: Daemon, client: str) -> None:
    daemon = scratch_daemon
    daemon.client(client, "run", "-d", "--name", "c", "busybox", "sleep", "1000")
    script = "echo on; while [ ! -e /go ]; do usleep 50000; done; exit 7"
    command = [find_client(client), "-H", daemon.host, "exec", "c", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        (exec_id,) = daemon.api("GET", "/containers/c/json")["ExecIDs"]
        waiting = daemon.api("POST", "/containers/c/exec", {"Cmd": ["sh", "-c", "exit 4"]})["Id"]
        failing = daemon.api("POST", "/containers/c/exec", {"Cmd": ["nothing"]})["Id"]
        daemon.api("POST", f"/exec/{failing}/start", {"Detach": True})
        daemon.kill()
        daemon.start()
        found = daemon.api("GET", f"/exec/{exec_id}/json")
        assert (found["Running"], found["ProcessConfig"]["arguments"]) == (True, ["-c", script])
        assert daemon.api("GET", f"/exec/{failing}/json")["ExitCode"] == 127
        daemon.client(client, "exec", "c", "touch", "/go")
        assert running.wait(30) == 7
    ended = daemon.api("GET", f"/exec/{exec_id}/json")
    assert (ended["Running"], ended["ExitCode"]) == (False, 7)
    daemon.api("POST", f"/exec/{waiting}/start", {"Detach": True})

    def code() -> object:
        return daemon.api("GET", f"/exec/{waiting}/json")["ExitCode"]

    until(lambda: code() is not None)
    assert code() == 4
