"""Stand-ins for what containers are made of, so that their life can be tested without a kernel."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from lading.backends import Backends
from lading.config import Settings
from lading.containers.parts import Parts
from lading.errors import Conflict, NotFound, StartFailed
from lading.hooks.common import Mount
from lading.hooks.filesystem import Kind, Snapshot, Usage
from lading.hooks.isolation import Stats
from lading.monitor import Exit, Launch, MonitorEvent
from lading.monitor.launch import State
from lading.networks import ContainerNetworks, EndpointState, Sandbox
from lading.store.clock import now
from lading.store.db import Database
from lading.store.events import Events
from lading.store.intents import Intents
from lading.volumes import Volumes

IMAGE = "sha256:" + "1" * 64


class FakeMonitor:
    """A monitor whose container ends when a test says so."""

    pid = 4242
    monitor_pid = 4241

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.started_at = time.time()
        self.callbacks: list[Callable[[MonitorEvent], None]] = []
        self.untold: list[MonitorEvent] = []
        self.attached: list[Any] = []
        self.execs: dict[str, Mapping[str, Any]] = {}

    def tell(self, event: MonitorEvent) -> None:
        if not self.callbacks:
            self.untold.append(event)
        for callback in self.callbacks:
            callback(event)

    def end(self, code: int = 0, **members: Any) -> None:
        exit = Exit(code, finished_at=now(), **members)
        self.tell(MonitorEvent("exit", self.launch.container, exit=exit))

    def on_event(self, callback: Callable[[MonitorEvent], None]) -> None:
        self.callbacks.append(callback)
        for event in self.untold:
            callback(event)

    def attach_descriptor(self, client: int, spec: Any) -> None:
        self.attached.append(spec)

    def exec(self, exec_id: str, process: Mapping[str, Any], **options: Any) -> Any:
        if process["args"] == ["missing"]:
            raise StartFailed('exec: "missing": executable file not found in $PATH', errno=2)
        self.execs[exec_id] = process
        self.on_exec(exec_id, options.get("client", -1))
        return SimpleNamespace(pid=os.getpid(), stream=None)

    def on_exec(self, exec_id: str, client: int) -> None:
        """What happens before the exec's start is answered."""

    def end_exec(self, exec_id: str, code: int) -> None:
        self.tell(
            MonitorEvent("exec-exit", self.launch.container, exec_id, Exit(code, finished_at=now()))
        )

    def state(self) -> State:
        return State(self.launch.container, "running", self.pid, self.monitor_pid, self.started_at)

    def close(self) -> None:
        pass


class FakeSpawner:
    """Monitors at once; ``fails`` is raised by the next launch."""

    def __init__(self) -> None:
        self.monitors: list[FakeMonitor] = []
        self.fails: Exception | None = None

    def monitor(self, launch: Launch, fds: Mapping[str, int]) -> FakeMonitor:
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        monitor = FakeMonitor(launch)
        self.monitors.append(monitor)
        return monitor

    def task(self, function: str, args: Mapping[str, Any], fds: Sequence[int] = ()) -> Any:
        return SimpleNamespace(wait=lambda: ["root:x:0:0::/root:/bin/sh\n", "root:x:0:\n"])


class FakeIsolation:
    """Signals end the container as a shell that has no handlers would."""

    def __init__(self, spawner: FakeSpawner) -> None:
        self._spawner = spawner
        self.calls: list[tuple[str, object]] = []
        self.ignores: set[int] = set()

    def _monitor(self, container: Any) -> FakeMonitor:
        return next(
            m for m in reversed(self._spawner.monitors) if m.launch.container == container.id
        )

    def signal(self, container: Any, signal: int, everyone: bool) -> None:
        self.calls.append(("signal", signal))
        if signal not in self.ignores:
            self._monitor(container).end(128 + signal, signal=signal)

    def pause(self, container: Any) -> None:
        self.calls.append(("pause", container.id))

    def resume(self, container: Any) -> None:
        self.calls.append(("resume", container.id))

    def update(self, container: Any, resources: Mapping[str, Any]) -> None:
        self.calls.append(("update", dict(resources)))

    def delete(self, container: Any) -> None:
        self.calls.append(("delete", container.id))

    def processes(self, container: Any) -> Sequence[int]:
        return [1]

    def stats(self, container: Any) -> Stats:
        return Stats(cpu_usage=5, memory_usage=7, pids=1)


class FakeFilesystem:
    """Snapshots as a set of keys."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        self.keys[key] = parent
        return self.mounts(key)

    view = prepare

    def mounts(self, key: str) -> Sequence[Mount]:
        if key not in self.keys:
            raise NotFound(f'snapshot "{key}"')
        return [Mount("bind", f"/snapshots/{key}", ("rbind",))]

    def remove(self, key: str) -> None:
        if self.keys.pop(key, None) is None:
            raise NotFound(f'snapshot "{key}"')

    def usage(self, key: str) -> Usage:
        return Usage(100, 1)

    def walk(self) -> Iterator[Snapshot]:
        for key, parent in self.keys.items():
            yield Snapshot(key, parent, Kind.ACTIVE)


class FakeImages:
    """One image, ``busybox``."""

    config: Mapping[str, Any] = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}

    def get(self, ref: str) -> Any:
        if ref not in ("busybox", IMAGE):
            raise NotFound(f"No such image: {ref}")
        return SimpleNamespace(
            id=IMAGE,
            config_bytes=msgspec.json.encode({"config": self.config}),
            config=SimpleNamespace(os="linux", architecture="amd64"),
            layers=(),
            size=1000,
        )

    def snapshot_for(self, image: Any, filesystem: str) -> str:
        return "sha256:layer"


class FakeNetworks:
    """Remembers who is connected."""

    def __init__(self) -> None:
        self.connected: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **named: None

    def allocate(self, container: Any, **named: Any) -> Sandbox:
        self.connected.add(container.id)
        return Sandbox(container.id, "/run/netns/n1", hosts="h\n", resolv_conf="r\n")

    def of(self, container: Any) -> ContainerNetworks:
        return ContainerNetworks((EndpointState("n1", "bridge"),))

    def release(self, container: str) -> None:
        self.connected.discard(container)


def backends(role: str, name: str, hook: object, *capabilities: str) -> Backends[Any]:
    loaded = SimpleNamespace(
        name=name,
        hook=hook,
        capabilities=frozenset(capabilities),
        probe=SimpleNamespace(usable=True),
        require=lambda capability: None,
    )
    return Backends(role, name, {name: cast(Any, loaded)})


class World:
    """All fakes together, over a real database and real volumes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spawner = FakeSpawner()
        self.isolation = FakeIsolation(self.spawner)
        self.filesystem = FakeFilesystem()
        self.networks = FakeNetworks()
        self.events = Events()

    def parts(self) -> Parts:
        """Parts as a daemon that starts now would make them."""
        db = Database(self.root / "metadata.db")
        self.intents = Intents(db)
        self.volumes = Volumes(db, self.events, self.root / "volumes")
        return Parts(
            db=db,
            intents=self.intents,
            events=self.events,
            spawner=cast(Any, self.spawner),
            archives=cast(Any, None),
            images=cast(Any, FakeImages()),
            networks=cast(Any, self.networks),
            volumes=self.volumes,
            filesystems=backends("filesystem", "plain", self.filesystem),
            isolations=backends("isolation", "bare", self.isolation, "update", "pause"),
            settings=Settings(data_root=str(self.root), exec_root=str(self.root / "run")),
            data_root=self.root,
            exec_root=self.root / "run",
        )

    def actions(self) -> list[str]:
        """The events of containers so far."""
        seen = self.events.subscribe(since=0, until=time.time_ns(), filters={"type": ["container"]})
        return [event.action for event in seen]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


__all__ = ["IMAGE", "Conflict", "FakeMonitor", "World", "socket_pair"]
