"""The monitor's control socket: requests of the daemon in, answers and events out.

``run/monitor.sock`` lies in a directory of mode 0700, and peers of another user are turned
away. A request names its ``op`` and carries an ``id`` that its answer repeats; answers hold
``error`` when it failed. Connections that subscribed get events, messages without an ``id``.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from lading.errors import to_wire
from lading.monitor import wire
from lading.monitor.loop import IN, Loop

SOCKET: Final = "monitor.sock"

#: Carries a request out: gets the message and its descriptors, which it owns, returns the answer.
Handler = Callable[[wire.Message, list[int]], wire.Message]


def listen(run: str) -> socket.socket:
    """Make the listening socket in place of an older one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    # By way of the directory's descriptor: a path in sun_path ends at 107 bytes.
    directory = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_socket(run)
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        listener.listen()
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def remove_socket(run: str) -> None:
    """Take the socket out of its directory. A second call does nothing."""
    try:
        os.unlink(f"{run}/{SOCKET}")
    except FileNotFoundError:
        pass


class Control:
    """The listening socket and its connections."""

    def __init__(self, loop: Loop, listener: socket.socket, run: str, handle: Handler) -> None:
        self._loop = loop
        self._handle = handle
        self._run = run
        self._connections: list[_Connection] = []
        self._listener = listener
        loop.watch(listener.fileno(), IN, self._on_connect)

    def adopt(self, sock: socket.socket) -> None:
        """Make an existing socket a connection, subscribed to events."""
        self._connections.append(_Connection(self, sock, subscribed=True))

    def tell(self, message: wire.Message) -> None:
        """Send an event to all subscribers."""
        data = wire.encode(message)
        for connection in tuple(self._connections):
            if connection.subscribed:
                connection.push(data)

    def stop_listening(self) -> None:
        """Take the socket away; connections stay. A second call does nothing."""
        if self._listener.fileno() >= 0:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            remove_socket(self._run)

    def _on_connect(self, events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            sock.close()
            return
        self._connections.append(_Connection(self, sock, subscribed=False))

    def answer(self, message: wire.Message, fds: list[int]) -> wire.Message:
        """Carry a request out; whatever goes wrong becomes the answer."""
        try:
            return self._handle(message, fds)
        except Exception as error:
            return {"error": to_wire(error)}

    def watch(self, connection: _Connection) -> None:
        """Listen to a connection."""
        self._loop.watch(connection.fileno(), IN, connection.on_ready)

    def forget(self, connection: _Connection) -> None:
        """A connection is about to be closed."""
        self._loop.forget(connection.fileno())
        self._connections.remove(connection)


class _Connection:
    def __init__(self, control: Control, sock: socket.socket, *, subscribed: bool) -> None:
        self._control = control
        self._sock = sock
        self._receiver = wire.Receiver(sock)
        self.subscribed = subscribed
        control.watch(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def on_ready(self, events: int) -> None:
        try:
            alive = self._receiver.read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            alive = False
        while self.fileno() >= 0 and (found := self._receiver.next()) is not None:
            self._serve(*found)
        if not alive:
            self._close()

    def _serve(self, message: wire.Message, fds: list[int]) -> None:
        if message["op"] == "subscribe":
            self.subscribed = True
        answer: dict[str, Any] = self._control.answer(message, fds)
        self.push(wire.encode({**answer, "id": message["id"]}))

    def push(self, data: bytes) -> None:
        """Send without waiting: a daemon that lets so much pile up does not read any more."""
        if self.fileno() < 0:
            return
        try:
            sent = self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            sent = -1
        if sent < len(data):
            self._close()

    def _close(self) -> None:
        if self.fileno() >= 0:
            self._control.forget(self)
            self._receiver.close()
            self._sock.close()
