"""An isolation backend without isolation: fork, wait for the start, exec. For tests, no root."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import termios
from collections.abc import Mapping, Sequence
from typing import Any

from lading.errors import StartFailed
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stats, Stdio


class PlainIsolation:
    """Runs ``process`` of ``config.json`` as a child; ``rootfs`` is not looked at."""

    spec_version = 1
    capabilities: frozenset[str] = frozenset()

    def __init__(self, context: Context) -> None:
        self._go = -1

    @hookimpl
    def probe(self) -> Probe:
        return Probe(usable=True)

    @hookimpl
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        config = json.loads((container.bundle / "config.json").read_text())
        waits, self._go = os.pipe2(os.O_CLOEXEC)
        self._failed, fails = os.pipe2(os.O_CLOEXEC)
        started = _fork(config["process"], stdio, waits, fails)
        os.close(waits)
        os.close(fails)
        (container.state / "pid").write_text(str(started.pid))
        return started

    @hookimpl
    def start(self, container: Container) -> None:
        os.write(self._go, b"x")
        os.close(self._go)
        _raise_failure(self._failed)

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        failed, fails = os.pipe2(os.O_CLOEXEC)
        started = _fork(process, stdio, -1, fails)
        os.close(fails)
        _raise_failure(failed)
        return started

    @hookimpl
    def signal(self, container: Container, signal: int, everyone: bool) -> None:
        os.kill(int((container.state / "pid").read_text()), signal)

    @hookimpl
    def pause(self, container: Container) -> None: ...

    @hookimpl
    def resume(self, container: Container) -> None: ...

    @hookimpl
    def update(self, container: Container, resources: Mapping[str, Any]) -> None: ...

    @hookimpl
    def processes(self, container: Container) -> Sequence[int]:
        return [int((container.state / "pid").read_text())]

    @hookimpl
    def stats(self, container: Container) -> Stats:
        return Stats(oom_kills=int((container.state / "oom").exists()))

    @hookimpl
    def delete(self, container: Container) -> None: ...


def _fork(process: Mapping[str, Any], stdio: Stdio, waits: int, fails: int) -> Started:
    console, slave = pty.openpty() if stdio.terminal else (-1, -1)
    pid = os.fork()
    if pid == 0:
        try:
            _run(process, stdio, slave, waits, fails)
        finally:
            os._exit(126)
    if slave >= 0:
        os.close(slave)
    return Started(pid, pid, console)


def _run(process: Mapping[str, Any], stdio: Stdio, slave: int, waits: int, fails: int) -> None:
    if waits >= 0 and not os.read(waits, 1):
        os._exit(0)
    os.setsid()
    if stdio.terminal:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for target, fd in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
        os.dup2(slave if stdio.terminal else fd, target)
    environment = dict(e.split("=", 1) for e in process.get("env", ("PATH=/usr/bin:/bin",)))
    try:
        os.execvpe(process["args"][0], process["args"], environment)
    except OSError as error:
        os.write(fails, str(error.errno).encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)


def _raise_failure(fd: int) -> None:
    text = os.read(fd, 16)
    os.close(fd)
    if text:
        raise StartFailed(f"exec: {os.strerror(int(text))}", errno=int(text))


def kill(pid: int) -> None:
    """Kill without complaint."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
