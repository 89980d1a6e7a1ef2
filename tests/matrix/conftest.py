"""Every isolation backend with every filesystem backend that this host has, on one daemon.

Backends are found as the daemon finds them, by their entry points: one that is installed is in the
matrix, and one that cannot work here is a single skipped test that says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from lading import backends
from lading.backends import Backends
from lading.testing.containerd import running_containerd
from lading.testing.daemon import Daemon, busybox_image, docker_clients, nothing_left
from lading.testing.volumes import loop_volume


@dataclass(frozen=True)
class Pair:
    """One cell of the matrix. Clients take turns, so that each meets each backend."""

    isolation: str
    filesystem: str
    client: str

    def __str__(self) -> str:
        return f"{self.isolation}-{self.filesystem}"

    @property
    def words(self) -> list[str]:
        """The options that choose it, as any Docker client has them."""
        return ["--runtime", self.isolation, "--storage-opt", f"driver={self.filesystem}"]


@cache
def found(role: str) -> tuple[dict[str, str], dict[str, str]]:
    """The usable backends of a role, and why the others are not, by name."""
    with tempfile.TemporaryDirectory(prefix="lading-") as root:
        make = backends.contexts_under(Path(root) / "data", Path(root) / "run", role, {})
        loaded: Backends[object] = backends.load(role, make)
    usable = {name: b.probe.version for name, b in loaded.loaded.items() if b.probe.usable}
    reasons = {n: b.probe.reason for n, b in loaded.loaded.items() if not b.probe.usable}
    reasons |= {name: failed.reason for name, failed in loaded.failed.items()}
    if role == "filesystem":
        # These the fixture gives what they need.
        for name, program in (("btrfs", "mkfs.btrfs"), ("snapshotter", "containerd")):
            if name in reasons and shutil.which(program) and kernel_has(name):
                usable[name] = reasons.pop(name)
        # A guest kernel is too slow for all of them.
        if wanted := os.environ.get("LADING_MATRIX_FILESYSTEMS"):
            usable = {name: usable[name] for name in wanted.split(",")}
    return usable, reasons


def kernel_has(filesystem: str) -> bool:
    """Whether a filesystem of that name, where it is one of the kernel's, can be mounted."""
    if filesystem != "btrfs":
        return True
    if not os.path.exists("/dev/loop-control"):
        return False
    if filesystem in Path("/proc/filesystems").read_text().split():
        return True
    loader = shutil.which("modprobe", path="/sbin:/usr/sbin")
    return loader is not None and subprocess.run([loader, "-nq", filesystem]).returncode == 0


def names(role: str) -> list[str]:
    """What is in the matrix: nothing for users who cannot run containers."""
    return sorted(found(role)[0]) if os.geteuid() == 0 else []


def pairs() -> list[Pair]:
    """All cells."""
    clients = ["lading", *docker_clients()]
    return [
        Pair(isolation, filesystem, clients[(i + j) % len(clients)])
        for i, isolation in enumerate(names("isolation"))
        for j, filesystem in enumerate(names("filesystem"))
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", pairs(), ids=str, scope="module")


class Engine(Daemon):
    """A daemon that has every filesystem backend which can be had here."""

    def __init__(self, root: Path, address: str) -> None:
        super().__init__(f"--config-file={root / 'lading.toml'}", root=root)
        (root / "lading.toml").write_text(f"[filesystem.snapshotter]\naddress = '{address}'\n")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The one daemon of the matrix. Its root is on btrfs, where overlay and vfs work too."""
    with ExitStack() as stack:
        stack.enter_context(nothing_left())
        usable = names("filesystem")
        address = "/nowhere"
        if "snapshotter" in usable:
            address = stack.enter_context(running_containerd()).address
        place = Path(tempfile.mkdtemp(prefix="lading-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        if "btrfs" in usable:
            place.chmod(0o711)
            place = stack.enter_context(loop_volume("btrfs", place))
        root = place / "d"
        root.mkdir()
        daemon = stack.enter_context(Engine(root, address))
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        yield daemon


@pytest.fixture(scope="module")
def box(engine: Engine, pair: Pair) -> Iterator[str]:
    """A container of this cell that runs and waits."""
    name = f"box-{pair}"
    engine.client(pair.client, "run", "-d", "--name", name, *pair.words, "busybox", *WAIT)
    yield name
    engine.client("lading", "rm", "-f", name)


#: Waits, and ends at once when it is asked to.
WAIT: Sequence[str] = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 1000 & wait; done")


def text(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a client wrote."""
    return done.stdout.decode()
