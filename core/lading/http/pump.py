"""Carries bytes between a client's raw connection and a socket of the engine, both ways."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
import threading
import time
from array import array

from lading.http.messages import Connection
from lading.http.stream import CHUNK, PlainStream

SETTLE_SECONDS = 0.1
SETTLE_STEPS = 100
SETTLE_STEP_SECONDS = 0.0002


def pump(
    client: Connection,
    engine: socket.socket,
    *,
    stdin: bool = True,
) -> None:
    """Carry until the engine's side has ended, then end the client's; nothing piles up.

    The client's end of its side is passed on, and the engine's output goes on after it. Without
    ``stdin`` what the client sends is dropped. A client that has closed entirely ends the pump
    although the engine is silent, where that can be seen.
    """
    upwards = threading.Thread(target=_carry_input, args=(client, engine, stdin), daemon=True)
    upwards.start()
    try:
        with client.when_closed(PlainStream(engine).shutdown):
            _carry_output(client, engine)
    finally:
        PlainStream(engine).shutdown()
        # Closing a TCP connection with unread input resets it, and a slow client loses what it has
        # not read yet; so input is read on, to be dropped, while output is on its way.
        while upwards.is_alive() and _unsent(client):
            upwards.join(SETTLE_SECONDS)
        client.shutdown()
        upwards.join()


def send_and_settle(descriptor: int, data: bytes) -> None:
    """Send on a blocking socket, and give the peer a moment to take it before more follows."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    for _ in range(SETTLE_STEPS):
        if not _queued(descriptor):
            return
        time.sleep(SETTLE_STEP_SECONDS)


def _unsent(client: Connection) -> bool:
    """Whether the peer's kernel has not confirmed everything; a unix socket has no such state."""
    connected = client.stream.socket
    return connected.family != socket.AF_UNIX and _queued(connected.fileno()) > 0


def _queued(descriptor: int) -> int:
    """Bytes that a unix socket's peer has not read, or a TCP peer's kernel not confirmed."""
    count = array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)
    except OSError:
        return 0
    return count[0]


def _carry_output(client: Connection, engine: socket.socket) -> None:
    buffer = memoryview(bytearray(CHUNK))
    try:
        while size := engine.recv_into(buffer):
            client.sendall(buffer[:size])
        client.shutdown_write()
    except OSError:
        pass  # one of them is gone; the other ends too


def _carry_input(client: Connection, engine: socket.socket, stdin: bool) -> None:
    try:
        while data := client.recv(CHUNK):
            if stdin:
                stdin = _passed_on(engine, data)
        if stdin:
            PlainStream(engine).shutdown_write()
    except OSError:
        pass  # only the input has failed; the output may still have much to say


def _passed_on(engine: socket.socket, data: bytes) -> bool:
    try:
        engine.sendall(data)
    except OSError:
        return False  # nobody reads any more
    return True
