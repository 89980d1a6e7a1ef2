"""The engines that are compared, each started on scratch directories and removed afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from lading.testing.daemon import Daemon, unmount_below


class Engine:
    """A running engine that the docker client can be pointed at."""

    name = ""
    host = ""

    def start(self) -> None:
        """Start it and return when it answers."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop it and remove what it left."""
        raise NotImplementedError

    def daemon_pids(self) -> list[int]:
        """The processes that run whether or not a container does."""
        raise NotImplementedError

    def per_container_pids(self) -> list[int]:
        """The engine's processes that exist once for each container."""
        raise NotImplementedError

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Lading(Engine):
    """This checkout's ``ladingd``."""

    name = "lading"

    def __init__(self, *flags: str) -> None:
        self.daemon = Daemon(*flags)
        self.host = self.daemon.host

    def start(self) -> None:
        """Start it and return when it answers."""
        self.daemon.start()

    def close(self) -> None:
        """Stop it and remove what it left."""
        self.daemon.close()

    def daemon_pids(self) -> list[int]:
        """``ladingd``, its spawner, and what that keeps ready."""
        assert self.daemon.process is not None
        main = self.daemon.process.pid
        spawner = children(main)
        ready = [p for s in spawner for p in (*children(s), *grandchildren(s))]
        return [main, *spawner, *(p for p in ready if name(p) == "lading-ready")]

    def per_container_pids(self) -> list[int]:
        """The monitors, told by their name and by this benchmark's network namespace."""
        return [pid for pid in processes() if name(pid) == "lading-monitor" and beside_us(pid)]


class Dockerd(Engine):
    """Debian's ``dockerd`` with its own ``containerd`` and ``runc``."""

    name = "dockerd"

    def __init__(self, *flags: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="bench-dockerd-"))
        self.host = f"unix://{self.root}/s"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.root}/data",
                    f"--exec-root={self.root}/run",
                    f"--pidfile={self.root}/pid",
                    f"--host={self.host}",
                    *self.flags,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + 60
        while subprocess.run(
            ["docker", "-H", self.host, "version"], capture_output=True, check=False
        ).returncode:
            if time.monotonic() > give_up or self.process.poll() is not None:
                raise RuntimeError((self.root / "log").read_text())
            time.sleep(0.1)

    def close(self) -> None:
        """Stop it and remove what it left."""
        if self.process is not None:
            listed = subprocess.run(
                ["docker", "-H", self.host, "ps", "-aq"], capture_output=True, check=False
            )
            if ids := listed.stdout.decode().split():
                subprocess.run(
                    ["docker", "-H", self.host, "rm", "-f", *ids], capture_output=True, check=False
                )
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)
        unmount_below(self.root)
        shutil.rmtree(self.root, ignore_errors=True)

    def daemon_pids(self) -> list[int]:
        """``dockerd`` and its ``containerd``."""
        assert self.process is not None
        main = self.process.pid
        return [main, *(p for p in children(main) if "shim" not in command(p))]

    def per_container_pids(self) -> list[int]:
        """The shims that were started for this daemon's containers."""
        marker = str(self.root)
        return [p for p in processes() if "shim" in command(p) and marker in command(p)]


def processes() -> list[int]:
    """All pids."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command(pid: int) -> str:
    """A process's command line, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(p) for p in (task / "children").read_text().split()]
    return found


def grandchildren(pid: int) -> list[int]:
    """The children of a process's children."""
    return [grandchild for child in children(pid) for grandchild in children(child)]


def name(pid: int) -> str:
    """A process's name, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def beside_us(pid: int) -> bool:
    """Whether a process is in this process's network namespace."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def memory(pids: list[int], row: str) -> int:
    """A row of ``smaps_rollup`` (``Pss``, ``Rss``) added up over processes, in kB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{row}:"):
                total += int(line.split()[1])
    return total
