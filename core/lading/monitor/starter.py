"""Children of the monitor in which the isolation backend's hooks run.

``create``, ``start`` and ``exec`` touch far more memory than a monitor that waits. Each page that
they touch would be the monitor's own from then on, so they run in a process that ends: what it has
started becomes the monitor's child, which is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lading.errors import from_wire, to_wire
from lading.hooks.isolation import Container, Isolation, Started, Stdio
from lading.monitor import process, wire
from lading.monitor.launch import Launch
from lading.monitor.stdio import resize

Size = Sequence[int] | None


class Starter:
    """The monitor's end of such a child."""

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        """Fork a child that does ``work`` with its end of a socket, and ends."""
        self._socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                self._socket.close()
                work(theirs)
            except BaseException as error:
                wire.send(theirs, {"error": to_wire(error)})
            finally:
                os._exit(0)
        theirs.close()
        self._receiver = wire.Receiver(self._socket)
        #: The process that was started, once it is known; also when it failed after that.
        self.wait_pid = 0

    def answer(self) -> tuple[wire.Message, int]:
        """Wait for the child's answer, with a console's descriptor or -1; raises its error."""
        message, fds = self._receiver.receive()
        self.wait_pid = message.get("wait_pid", self.wait_pid)
        if "error" in message:
            raise from_wire(message["error"])
        return message, (fds[0] if fds else -1)

    def proceed(self) -> None:
        """Let a child that has created go on to ``start``; raises its error."""
        wire.send(self._socket, {})
        self.answer()

    def close(self) -> None:
        """Give the child up: it ends when it waits for :meth:`proceed`."""
        self._socket.close()


def create(isolation: Isolation, launch: Launch, stdio: Stdio, sock: socket.socket) -> None:
    """Create and start; without ``launch.start`` the start waits for a word from the monitor."""
    container = Container(launch.container, launch.bundle, launch.run / "state")
    container.state.mkdir(mode=0o700, exist_ok=True)
    started = isolation.create(container=container, rootfs=launch.rootfs, stdio=stdio)
    if not launch.start:
        _tell(sock, started, launch.console_size)
        wire.Receiver(sock).receive()
    elif started.console >= 0 and launch.console_size is not None:
        resize(started.console, *launch.console_size)
    try:
        isolation.start(container=container)
    except BaseException as error:
        wire.send(sock, {"error": to_wire(error), "wait_pid": started.wait_pid})
        return
    if launch.start:
        _tell(sock, started, None)
    else:
        wire.send(sock, {})


def execute(
    isolation: Isolation,
    container: Container,
    oci: Mapping[str, Any],
    stdio: Stdio,
    size: Size,
    sock: socket.socket,
) -> None:
    """Run one more process in a container."""
    # A monitor is protected from the OOM killer, its container is not.
    process.oom_score_adj(0)
    _tell(sock, isolation.exec(container=container, process=oci, stdio=stdio), size)


def _tell(sock: socket.socket, started: Started, size: Size) -> None:
    if started.console >= 0 and size is not None:
        resize(started.console, size[0], size[1])
    fds = [started.console] if started.console >= 0 else []
    wire.send(sock, {"pid": started.pid, "wait_pid": started.wait_pid}, fds)
