"""The server's side of WebSocket (RFC 6455), as far as attaching to a container needs it.

Messages may be fragmented; extensions and subprotocols are not offered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import socket
import struct
import threading

from lading.errors import Invalid
from lading.http.messages import Connection, Request
from lading.http.stream import CHUNK, PlainStream

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FRAME_LIMIT = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept(request: Request) -> dict[str, str]:
    """Headers that accept the client's handshake. Raises Invalid when it is none."""
    key = request.headers.get("sec-websocket-key", "")
    try:
        whole = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        whole = False
    if not whole or request.headers.get("upgrade", "").lower() != "websocket":
        raise Invalid("not a WebSocket handshake")
    digest = hashlib.sha1(key.encode("ascii") + _MAGIC, usedforsecurity=False).digest()
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode("ascii"),
    }


class Carrier:
    """Carries between a client's messages and a container's streams until one of them ends."""

    def __init__(self, engine: socket.socket, *, tty: bool, binary: bool) -> None:
        """``engine`` is closed at the end; it sends frames unless there is a terminal."""
        self._engine = engine
        self._tty = tty
        self._kind = BINARY if binary else TEXT

    def carry(self, client: Connection) -> None:
        """Carry for as long as both live."""
        sender = _Sender(client, self._kind)
        upwards = threading.Thread(target=self._carry_input, args=(client, sender), daemon=True)
        upwards.start()
        try:
            self._carry_output(sender)
        except OSError:
            pass  # one side is gone
        finally:
            PlainStream(self._engine).shutdown()
            client.shutdown()
            upwards.join()
            self._engine.close()

    def _carry_output(self, sender: _Sender) -> None:
        frames = Frames()
        while data := self._engine.recv(CHUNK):
            payload = data if self._tty else frames.payload(data)
            if payload:
                sender.send(payload)
        sender.close()

    def _carry_input(self, client: Connection, sender: _Sender) -> None:
        reader = _Reader(client)
        try:
            while True:
                kind, data = reader.frame()
                if kind == CLOSE:
                    break
                if kind == PING:
                    sender.frame(PONG, data)
                elif kind != PONG and data:
                    self._engine.sendall(data)
        except (OSError, Invalid):
            pass  # a client that breaks off detaches, as one that closes does
        # A page that goes away has no way to end stdin alone.
        PlainStream(self._engine).shutdown()


class _Sender:
    """Sends frames; two threads do."""

    def __init__(self, client: Connection, kind: int) -> None:
        self._client = client
        self._kind = kind
        self._lock = threading.Lock()

    def send(self, data: bytes) -> None:
        self.frame(self._kind, data)

    def close(self) -> None:
        self.frame(CLOSE, struct.pack("!H", 1000))

    def frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | kind, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 127, size)
        with self._lock:
            self._client.sendall(head + data)


class _Reader:
    """Reads the client's frames, which are masked."""

    def __init__(self, client: Connection) -> None:
        self._client = client
        self._buffer = bytearray()

    def frame(self) -> tuple[int, bytes]:
        """Kind and content of the next frame. Raises Invalid, ConnectionError."""
        first, second = self._take(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        if not second & 0x80 or size > FRAME_LIMIT:
            raise Invalid("WebSocket frame: not masked, or larger than 1 MiB")
        mask = self._take(4)
        data = self._take(size)
        pad = (mask * (size // 4 + 1))[:size]
        whole = int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")
        return first & 0x0F, whole.to_bytes(size, "big")

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self._client.recv()
            if not data:
                raise ConnectionResetError("the WebSocket ended")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class Frames:
    """Takes the 8-byte headers out of a container's output."""

    def __init__(self) -> None:
        self._left = 0
        self._header = b""

    def payload(self, data: bytes) -> bytes:
        """The output within these bytes; headers may be split between calls."""
        out = bytearray()
        while data:
            if self._left:
                out += data[: self._left]
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                continue
            missing = 8 - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) == 8:
                self._left = int.from_bytes(self._header[4:], "big")
                self._header = b""
        return bytes(out)
