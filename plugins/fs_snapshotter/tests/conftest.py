"""A containerd of the tests' own, on scratch directories."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_CONFIG = """
version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[grpc]
address = "{root}/socket"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
"""


class Containerd:
    """The real thing; ``restart`` may be called at any time."""

    def __init__(self, root: Path, more: str = "") -> None:
        self.root, self.address = root, str(root / "socket")
        (root / "config.toml").write_text(_CONFIG.format(root=root) + more)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "-c", self.root / "config.toml"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        give_up = time.monotonic() + 30
        while self.ctr("version", check=False).returncode:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < give_up, self.log()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return (self.root / "log").read_text()

    def ctr(
        self, *arguments: str, namespace: str = "lading", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["ctr", "-a", self.address, "-n", namespace, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def snapshots(self, snapshotter: str = "overlayfs", namespace: str = "lading") -> list[str]:
        """The keys that containerd's own client sees."""
        listed = self.ctr("snapshots", "--snapshotter", snapshotter, "ls", namespace=namespace)
        return [line.split()[0] for line in listed.stdout.splitlines()[1:]]


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """One for all tests; its btrfs snapshotter works where a loop device with btrfs can be had."""
    for program in ("containerd", "ctr"):
        if not shutil.which(program):
            pytest.skip(f"no {program} on this host")
    # A short path: sockets' names have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="ctrd-"))
    mounted = _btrfs(root)
    running = Containerd(root)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        if mounted:
            subprocess.run(["umount", "--lazy", mounted], check=True)
        shutil.rmtree(root)


def _btrfs(root: Path) -> Path | None:
    """Put the place of containerd's btrfs snapshotter on btrfs."""
    image, place = root / "image", root / "root/io.containerd.snapshotter.v1.btrfs"
    place.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(1 << 30)
    made = (
        shutil.which("mkfs.btrfs")
        and not subprocess.run(["mkfs.btrfs", "-q", image], check=False).returncode
        and not subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode
    )
    return place if made else None
