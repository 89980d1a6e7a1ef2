"""A containerd of a test's own, on scratch directories: the peer behind its snapshotters."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from lading.testing.volumes import loop_volume

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
        """Start it and return when it answers."""
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
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def restart(self) -> None:
        """End it and start it again."""
        self.stop()
        self.start()

    def log(self) -> str:
        """What it has written so far."""
        return (self.root / "log").read_text()

    def ctr(
        self, *arguments: str, namespace: str = "lading", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run containerd's own client; with ``check`` a failure raises AssertionError."""
        done = subprocess.run(
            ["ctr", "-a", self.address, "-n", namespace, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def snapshots(self, snapshotter: str = "overlayfs", namespace: str = "lading") -> list[str]:
        """The keys that containerd's own client sees."""
        listed = self.ctr("snapshots", "--snapshotter", snapshotter, "ls", namespace=namespace)
        return [line.split()[0] for line in listed.stdout.splitlines()[1:]]


@contextmanager
def running_containerd(*kinds: str, more: str = "") -> Iterator[Containerd]:
    """One that runs for the time of the block; ``more`` is added to its configuration.

    ``kinds`` are filesystems after which snapshotters of it are named: these get one, in a file,
    where this host can make it. Skips where containerd is not installed.
    """
    for program in ("containerd", "ctr"):
        if not shutil.which(program):
            pytest.skip(f"no {program} on this host")
    # A short path: sockets' names have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="ctrd-"))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, root, ignore_errors=True)
        for kind in kinds:
            place = root / f"root/io.containerd.snapshotter.v1.{kind}"
            with suppress(pytest.skip.Exception):
                undo.enter_context(loop_volume(kind, root, place=place))
        running = Containerd(root, more)
        undo.callback(running.stop)
        running.start()
        yield running
