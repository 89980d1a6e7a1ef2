"""The value types that cross the borders between daemon, spawner and monitor.

Each has ``to_wire`` and ``from_wire`` where it travels as JSON. Times are what ``inspect`` shows:
RFC 3339 in UTC with nine digits.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lading.hooks.common import Mount

#: ctrl-p ctrl-q, what leaves a terminal unless the user chose other keys.
DETACH_KEYS: Final = b"\x10\x11"


def rfc3339(nanoseconds: int) -> str:
    """A point in time (since 1970) as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


@dataclass(frozen=True, slots=True)
class IsolationSpec:
    """An isolation backend, or an extension that wraps some, to be loaded by the spawner.

    ``target`` is the entry point's ``module:attribute``; ``data``, ``run`` and ``options`` are
    what its :class:`~lading.hooks.Context` gets.
    """

    name: str
    target: str
    data: Path
    run: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    role: str = "isolation"
    distribution: str = ""

    def to_wire(self) -> dict[str, Any]:
        """The members as JSON."""
        return {
            "name": self.name,
            "target": self.target,
            "data": str(self.data),
            "run": str(self.run),
            "options": dict(self.options),
            "role": self.role,
            "distribution": self.distribution,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> IsolationSpec:
        """What :meth:`to_wire` described."""
        return cls(**{**wire, "data": Path(wire["data"]), "run": Path(wire["run"])})


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How a container's output is kept.

    ``driver`` is ``json-file``, ``local`` (the same format, bounded by default) or ``none``.
    ``path`` is the file, in a directory that exists. Of ``options`` the monitor reads
    ``max-size``, ``max-file`` and ``compress``; ``attributes`` go into each line as ``attrs``.
    """

    driver: str = "json-file"
    path: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """The members as JSON."""
        return {
            "driver": self.driver,
            "path": None if self.path is None else str(self.path),
            "options": dict(self.options),
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> LogConfig:
        """What :meth:`to_wire` described."""
        path = wire["path"]
        return cls(
            wire["driver"],
            None if path is None else Path(path),
            wire["options"],
            wire["attributes"],
        )


@dataclass(frozen=True, slots=True)
class AttachSpec:
    """One client of a process's streams.

    ``fd`` names its stream socket among the descriptors that go with the request. Output comes
    in Docker's frames or raw as ``framed`` says, by default raw for a terminal; what the client
    sends goes to stdin when ``stdin``.
    ``detach_keys`` are looked for in the input of a terminal (None = :data:`DETACH_KEYS`, empty =
    never); ``prelude`` is sent before any output.
    """

    fd: str
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach_keys: bytes | None = None
    prelude: bytes = b""
    framed: bool | None = None

    def to_wire(self) -> dict[str, Any]:
        """The members as JSON."""
        keys = self.detach_keys
        return {
            "fd": self.fd,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "detach_keys": None if keys is None else keys.decode("latin-1"),
            "prelude": b64encode(self.prelude).decode("ascii"),
            "framed": self.framed,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> AttachSpec:
        """What :meth:`to_wire` described."""
        keys = wire["detach_keys"]
        return cls(
            **{
                **wire,
                "detach_keys": None if keys is None else keys.encode("latin-1"),
                "prelude": b64decode(wire["prelude"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """A container to be brought to life beside a new monitor.

    ``run`` (exec-root/containers/<id>) and ``bundle`` exist; the backend's state directory
    ``run/state`` is made when missing. With ``start`` the program runs when the launch returns,
    else it waits for :meth:`Monitor.start`. ``attach`` are clients that get the output from the
    very first byte. ``hook_timeout`` is how many seconds ``create`` with ``start``, and each
    ``exec``, may take.

    Descriptors that go with a launch are named: those of ``attach``; ``relay`` and ``relayed`` of
    :class:`lading.monitor.relay.Relay`; and ``hold-*`` for those that the monitor keeps open as
    long as the container lives (reserved ports).
    """

    container: str
    isolation: str
    bundle: Path
    run: Path
    rootfs: Sequence[Mount] = ()
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    log: LogConfig = field(default_factory=lambda: LogConfig("none"))
    start: bool = True
    attach: Sequence[AttachSpec] = ()
    hook_timeout: float = 120.0

    def to_wire(self) -> dict[str, Any]:
        """The members as JSON."""
        return {
            "container": self.container,
            "isolation": self.isolation,
            "bundle": str(self.bundle),
            "run": str(self.run),
            "rootfs": [[m.type, m.source, list(m.options), m.target] for m in self.rootfs],
            "terminal": self.terminal,
            "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "log": self.log.to_wire(),
            "start": self.start,
            "attach": [a.to_wire() for a in self.attach],
            "hook_timeout": self.hook_timeout,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Launch:
        """What :meth:`to_wire` described."""
        return cls(
            **{
                **wire,
                "bundle": Path(wire["bundle"]),
                "run": Path(wire["run"]),
                "rootfs": tuple(Mount(t, s, tuple(o), to) for t, s, o, to in wire["rootfs"]),
                "log": LogConfig.from_wire(wire["log"]),
                "attach": tuple(AttachSpec.from_wire(a) for a in wire["attach"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: ``code`` is its status, or 128 + ``signal`` when a signal killed it.

    ``oom_killed`` says that the kernel killed a process of the container for want of memory.
    """

    code: int
    signal: int = 0
    oom_killed: bool = False
    finished_at: str = ""

    def to_wire(self) -> dict[str, Any]:
        """The members as JSON, also those of ``exit.json``."""
        return {
            "code": self.code,
            "signal": self.signal,
            "oom_killed": self.oom_killed,
            "finished_at": self.finished_at,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Exit:
        """What :meth:`to_wire` described."""
        return cls(
            int(wire["code"]),
            int(wire["signal"]),
            bool(wire["oom_killed"]),
            str(wire["finished_at"]),
        )


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """What a monitor tells unasked.

    ``kind`` is ``exit`` (the container's init ended, its output is logged, ``exit.json`` is
    written), ``exec-exit`` (process ``exec_id`` ended), ``oom`` (a process was killed for want of
    memory), ``detach`` (a client left by its detach keys; ``exec_id`` when of an exec), or ``lost``
    (the monitor went away without an ``exit``: its container has no parent any more).
    """

    kind: str
    container: str
    exec_id: str = ""
    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What a monitor says of its container. ``status`` is ``created``, ``running`` or ``stopped``.

    ``pid`` is the init's, in the daemon's pid namespace; ``started_at`` in seconds since 1970, 0
    before the start. ``execs`` maps the ids of running execs to their pids, ``finished`` those of
    the last ones that ended to their codes.
    """

    container: str
    status: str
    pid: int
    monitor_pid: int
    started_at: float
    execs: Mapping[str, int] = field(default_factory=dict)
    finished: Mapping[str, Exit] = field(default_factory=dict)
