"""A disk that is full: what cannot be done says so, and what was there stays."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image, nothing_left

pytestmark = pytest.mark.root


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose data root has 40 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
    try:
        run = tmp_path / "run"
        with nothing_left(), Daemon(f"--exec-root={run}", root=disk) as daemon:
            daemon.client("lading", "import", "-", "busybox", input=busybox_image())
            yield daemon
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_import_and_commit_on_a_full_disk(small: Daemon, client: str) -> None:
    script = "dd if=/dev/zero of=/fill bs=1M count=128 2>&1 | tail -1; sync"
    small.client(client, "run", "--name", "filler", "busybox", "sh", "-c", script)
    for command, data in (
        (["import", "-", "second"], busybox_image()),
        (["commit", "filler", "third"], None),
    ):
        done = small.client(client, *command, input=data, check=False)
        assert done.returncode == 1, command
        assert "No space left on device" in done.stderr.decode() + done.stdout.decode()
    listed = small.client(client, "images", "--format", "{{.Repository}}").stdout.decode().split()
    assert listed == ["busybox"]
    small.client(client, "rm", "filler")
    small.client(client, "import", "-", "second", input=busybox_image())
    assert small.client(client, "run", "--rm", "second", "echo", "room").stdout == b"room\n"
