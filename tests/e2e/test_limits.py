"""Limits that hold and numbers that are true."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon
from lading.testing.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.root

EAT = "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done"


def state(daemon: Daemon, name: str) -> dict[str, object]:
    answer = json.loads(daemon.client("lading", "inspect", name).stdout)[0]["State"]
    assert isinstance(answer, dict)
    return answer


def test_memory_limit_kills_and_is_said(daemon: Daemon, client: str) -> None:
    name = f"oom{time.monotonic_ns()}"
    limits = ["-m", "64m", "--memory-swap", "64m"]
    done = daemon.client(
        client, "run", "--name", name, *limits, "busybox", "sh", "-c", EAT, check=False
    )
    assert done.returncode == 137
    assert state(daemon, name)["OOMKilled"] is True
    daemon.client(client, "rm", name)


def test_pids_limit(daemon: Daemon, client: str) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    done = daemon.client(
        client, "run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", script, check=False
    )
    assert "can't fork" in done.stderr.decode()


def test_stats_show_true_memory(daemon: Daemon, client: str) -> None:
    name = f"stats{time.monotonic_ns()}"
    script = "head -c 50000000 /dev/zero > /dev/shm/x; sleep 1000"
    daemon.client(client, "run", "-d", "--name", name, "-m", "256m", "busybox", "sh", "-c", script)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        shown = daemon.client(client, "stats", "--no-stream", "--format", "{{.MemUsage}}", name)
        used, _, limit = shown.stdout.decode().strip().partition(" / ")
        if used.endswith("MiB") and 45 < float(used[:-3]) < 60:
            break
    else:
        pytest.fail(f"memory shown: {used}")
    assert limit == "256MiB"
    daemon.client(client, "rm", "-f", name)


def test_ulimit_sysctl_shm(daemon: Daemon, client: str) -> None:
    flags = ["--ulimit", "nofile=99:100", "--sysctl", "net.ipv4.ip_forward=1", "--shm-size", "8m"]
    script = "ulimit -n; cat /proc/sys/net/ipv4/ip_forward; df -k /dev/shm | awk 'NR==2 {print $2}'"
    shown = daemon.client(client, "run", "--rm", *flags, "busybox", "sh", "-c", script)
    assert shown.stdout == b"99\n1\n8192\n"


@pytest.mark.skipif(
    "cpuset" not in Path("/proc/cgroups").read_text().split(),
    reason="this kernel has no cpuset controller",
)
def test_cpus_and_cpuset_reach_the_cgroup(daemon: Daemon, client: str) -> None:
    name = f"cpu{time.monotonic_ns()}"
    flags = ["--cpus", "0.5", "--cpuset-cpus", "0"]
    shown = daemon.client(
        client,
        "run",
        "--rm",
        "--name",
        name,
        *flags,
        "busybox",
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
    )
    assert shown.stdout.split() == [b"Cpus_allowed_list:", b"0"]


def test_privileged_and_capabilities(daemon: Daemon, client: str) -> None:
    script = "ip link set lo down && echo made"
    plain = daemon.client(client, "run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert b"made" not in plain.stdout
    for flag in ("--privileged", "--cap-add=NET_ADMIN"):
        assert (
            daemon.client(client, "run", "--rm", flag, "busybox", "sh", "-c", script).stdout
            == b"made\n"
        )
    none = daemon.client(
        client, "run", "--rm", "--cap-drop", "ALL", "busybox", "grep", "CapEff", "/proc/self/status"
    )
    assert none.stdout.split()[1] == b"0" * 16


def test_device_and_no_new_privileges(daemon: Daemon, client: str) -> None:
    shown = daemon.client(
        client, "run", "--rm", "--device", "/dev/kmsg", "busybox", "ls", "/dev/kmsg"
    )
    assert shown.stdout == b"/dev/kmsg\n"
    flags = ["--security-opt", "no-new-privileges"]
    shown = daemon.client(
        client, "run", "--rm", *flags, "busybox", "grep", "NoNewPrivs", "/proc/self/status"
    )
    assert shown.stdout.split() == [b"NoNewPrivs:", b"1"]


def test_what_is_masked_is_empty(daemon: Daemon, client: str) -> None:
    script = "cat /proc/timer_list; ls /proc/scsi /sys/firmware; echo x > /proc/sys/kernel/hostname"
    shown = daemon.client(client, "run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert shown.stdout.split() in ([b"/proc/scsi:", b"/sys/firmware:"], [b"/sys/firmware:"])
    assert "Read-only file system" in shown.stderr.decode()
