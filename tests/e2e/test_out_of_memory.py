"""The event ``oom``: a process is killed for want of memory, and its container lives on."""

from __future__ import annotations

import json
import time

import pytest

from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


def test_a_killed_child_is_told(daemon: Daemon, client: str) -> None:
    name = f"oom-child{time.monotonic_ns()}"
    script = "tail /dev/zero; echo $?; exec sleep 1000"
    daemon.client(client, "run", "-d", "--name", name, "-m", "32m", "--memory-swap", "32m",
                  "busybox", "sh", "-c", script)  # fmt: skip
    try:
        give_up = time.monotonic() + 60
        while b"137" not in daemon.client(client, "logs", name).stdout:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        rows: list[str] = []
        while not rows:
            assert time.monotonic() < give_up
            out = daemon.client(
                client, "events", "--since", "2m", "--until", "0s", "--format", "{{json .}}",
                "--filter", f"container={name}", "--filter", "event=oom",
            ).stdout.decode()  # fmt: skip
            rows = out.splitlines()
        assert json.loads(rows[0])["Action"] == "oom"
        state = json.loads(daemon.client(client, "inspect", name).stdout)[0]["State"]
        assert state["Running"] is True
    finally:
        daemon.client(client, "rm", "-f", name)
