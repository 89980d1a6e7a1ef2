"""Messages with descriptors over a unix stream socket.

A message is a header (length of the body, number of descriptors), then a JSON object. The
header counts the descriptors because the kernel may return bytes of two messages from one
``recvmsg``, with the second one's descriptors: unix(7) ties them to no message border.
"""

from __future__ import annotations

import json
import marshal
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from lading.errors import Unavailable

Message = dict[str, Any]

_HEADER = struct.Struct(">IB")
#: What the kernel passes at most in one message (SCM_MAX_FD).
MAX_DESCRIPTORS = 253
_CHUNK = 16384
_ANCILLARY = socket.CMSG_LEN(MAX_DESCRIPTORS * 4)


def encode(message: Mapping[str, Any], descriptors: int = 0) -> bytes:
    """The bytes of one message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _HEADER.pack(len(body), descriptors) + body


def send(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message with descriptors, blocking until all of it is in the socket."""
    _send(sock, encode(message, len(fds)), fds)


def send_to_kin(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int]) -> None:
    """As :func:`send`, for a :class:`KinReceiver`."""
    body = marshal.dumps(dict(message))
    _send(sock, _HEADER.pack(len(body), len(fds)) + body, fds)


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    sent = socket.send_fds(sock, [data], fds) if fds else sock.send(data)
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def receive(sock: socket.socket, size: int, flags: int = 0) -> tuple[bytes, Sequence[int]]:
    """Receive once: bytes, and descriptors that no child inherits.

    ``socket.recv_fds`` will not do: it ignores its flags.
    """
    fds = array("i")
    data, ancillary, _, _ = sock.recvmsg(size, _ANCILLARY, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, fds


class Receiver:
    """Takes messages off a socket, in blocking or non-blocking fashion."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""
        self._fds: deque[int] = deque()

    def read(self, flags: int = 0) -> bool:
        """Read once from the socket; False at its end. Raises BlockingIOError, OSError."""
        data, fds = receive(self._sock, _CHUNK, flags)
        self._fds.extend(fds)
        self._data += data
        return bool(data)

    def next(self) -> tuple[Message, list[int]] | None:
        """Return a message that has wholly arrived, with its descriptors, which become yours."""
        if len(self._data) < _HEADER.size:
            return None
        length, count = _HEADER.unpack_from(self._data)
        end = _HEADER.size + length
        if len(self._data) < end:
            return None
        message = self._decode(self._data[_HEADER.size : end])
        self._data = self._data[end:]
        return message, [self._fds.popleft() for _ in range(count)]

    def receive(self) -> tuple[Message, list[int]]:
        """Block for one message. Raises Unavailable when the peer has gone."""
        while True:
            found = self.next()
            if found is not None:
                return found
            try:
                alive = self.read()
            except ConnectionError:
                alive = False
            if not alive:
                self.close()
                raise Unavailable("the process at the other end of the socket has gone")

    def _decode(self, body: bytes) -> Message:
        message: Message = json.loads(body)
        return message

    def close(self) -> None:
        """Close the descriptors that arrived and that nobody took."""
        while self._fds:
            os.close(self._fds.popleft())


class KinReceiver(Receiver):
    """Takes messages from a fork of the same process.

    Their bodies are marshal's: a monitor that idles has then never run a JSON decoder, whose
    memory would have become its own.
    """

    def _decode(self, body: bytes) -> Message:
        message: Message = marshal.loads(body)
        return message
