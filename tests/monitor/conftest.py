"""A spawner with the plain backend, and containers to launch with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lading.errors import Unavailable
from lading.monitor import IsolationSpec, Launch, LogConfig, Monitor, Spawner
from lading.testing.waiting import until

HERE = Path(__file__).parent


def launch_spawner(root: Path) -> Spawner:
    sys.path.insert(0, str(HERE))
    try:
        return Spawner.launch(
            backends=[
                IsolationSpec("plain", "plain_isolation:PlainIsolation", root / "d", root / "r"),
                IsolationSpec("broken", "no_such_module:Backend", root / "d", root / "r"),
            ],
            preload=["task_functions"],
        )
    finally:
        sys.path.remove(str(HERE))


@pytest.fixture(scope="session")
def spawner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawner]:
    # As from a shell that has its background jobs ignore what the terminal sends.
    ignored = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGQUIT)}
    started = launch_spawner(tmp_path_factory.mktemp("spawner"))
    for number, handler in ignored.items():
        signal.signal(number, handler)
    yield started
    started.close()


@pytest.fixture
def spawner_of_its_own(tmp_path: Path) -> Iterator[Spawner]:
    started = launch_spawner(tmp_path)
    yield started
    started.close()


class Containers:
    """Launches containers and kills them in the end."""

    def __init__(self, spawner: Spawner, root: Path) -> None:
        self._spawner = spawner
        self._root = root
        self._count = 0
        self.monitors: list[Monitor] = []

    def define(self, *args: str, env: list[str] | None = None, **options: Any) -> Launch:
        self._count += 1
        bundle = self._root / f"c{self._count}"
        run = bundle / "run"
        run.mkdir(parents=True, mode=0o700)
        process: dict[str, Any] = {"args": args}
        if env is not None:
            process["env"] = env
        (bundle / "config.json").write_text(json.dumps({"process": process}))
        options.setdefault("log", LogConfig("json-file", bundle / "log"))
        return Launch(bundle.name, "plain", bundle, run, **options)

    def launch(self, launch: Launch, fds: Mapping[str, int] | None = None) -> Monitor:
        monitor = self._spawner.monitor(launch, fds)
        self.monitors.append(monitor)
        return monitor

    def launch_by(self, spawner: Spawner, *args: str) -> Monitor:
        monitor = spawner.monitor(self.define(*args))
        self.monitors.append(monitor)
        return monitor

    def run(self, *args: str, **options: Any) -> Monitor:
        return self.launch(self.define(*args, **options))

    def log(self, number: int = -1) -> Path:
        return self._root / f"c{self._count if number < 0 else number}" / "log"


@pytest.fixture
def containers(spawner: Spawner, tmp_path: Path) -> Iterator[Containers]:
    made = Containers(spawner, tmp_path)
    yield made
    for monitor in made.monitors:
        try:
            monitor.wait(0)
        except TimeoutError:
            # It is not over: the pid is still its own.
            with suppress(ProcessLookupError):
                os.kill(monitor.pid, 9)
            monitor.wait(60)
        except Unavailable:
            pass  # its test has seen to it
        monitor.close()


def read_frames(stream: socket.socket) -> dict[int, bytes]:
    """Everything until EOF, by the number of the stream."""
    data = read_all(stream)
    found: dict[int, bytes] = {1: b"", 2: b""}
    while data:
        size = int.from_bytes(data[4:8], "big")
        found[data[0]] += data[8 : 8 + size]
        data = data[8 + size :]
    return found


def read_all(stream: socket.socket) -> bytes:
    """Everything until EOF."""
    blocks = []
    stream.settimeout(60)
    while block := stream.recv(1 << 18):
        blocks.append(block)
    return b"".join(blocks)


@pytest.fixture
def frames() -> Callable[[socket.socket], dict[int, bytes]]:
    return read_frames


@pytest.fixture
def everything() -> Callable[[socket.socket], bytes]:
    return read_all


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    return until
