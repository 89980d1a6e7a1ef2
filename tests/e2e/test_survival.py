"""The daemon may die; containers, their logs and their exit codes do not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from lading.testing.daemon import Daemon, find_client

pytestmark = pytest.mark.root

COUNT = "i=0; while :; do echo line $i; i=$((i+1)); usleep 10000; done"


def test_ten_containers_outlive_a_killed_daemon(scratch_daemon: Daemon, client: str) -> None:
    daemon = scratch_daemon
    for number in range(8):
        daemon.client(client, "run", "-d", "--name", f"c{number}", "busybox", "sleep", "1000")
    daemon.client(client, "run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    daemon.client(
        client, "run", "-d", "-i", "--name", "short", "busybox", "sh", "-c", "sleep 1; exit 3"
    )
    daemon.kill()
    time.sleep(1.5)
    daemon.start()
    time.sleep(0.3)
    names = daemon.client(client, "ps", "--format", "{{.Names}}").stdout.decode().split()
    assert sorted(names) == sorted([*(f"c{n}" for n in range(8)), "counter"])
    lines = daemon.client(client, "logs", "counter").stdout.decode().splitlines()
    assert len(lines) > 100
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
    daemon.client("lading", "run", "-d", "--name", "x", "busybox", "sleep", "0.5")
    daemon.kill()
    time.sleep(2)
    daemon.start()
    state = json.loads(daemon.client("lading", "inspect", "x").stdout)[0]["State"]
    assert state["Status"] == "exited"
    seconds = [
        float(re.search(r":(\d+\.\d+)Z", state[k]).group(1))  # type: ignore[union-attr]
        for k in ("StartedAt", "FinishedAt")
    ]
    assert 0.4 < (seconds[1] - seconds[0]) % 60 < 1.5


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
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        if daemon.client("lading", "ps", "-q").stdout:
            return
        time.sleep(0.1)
    pytest.fail("it did not come back")


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
    give_up = time.monotonic() + 10
    while (found := daemon.api("GET", f"/exec/{waiting}/json"))["ExitCode"] is None:
        assert time.monotonic() < give_up
    assert found["ExitCode"] == 4
