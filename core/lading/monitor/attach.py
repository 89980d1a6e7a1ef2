"""One client of a process's streams, on a socket."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from lading.monitor.launch import DETACH_KEYS, AttachSpec
from lading.monitor.loop import HUP, IN, OUT, RDHUP

if TYPE_CHECKING:
    from lading.monitor.streams import Streams

#: The most that is read at once: what a pipe holds.
BLOCK: Final = 65536
_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class DetachKeys:
    """Finds the sequence of keys by which a client leaves, in input that comes in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is input for the process, and whether the sequence is complete."""
        keys = self._keys
        if not keys or (self._seen == 0 and keys[:1] not in data):
            return data, False
        passed = bytearray()
        for byte in data:
            if byte != keys[self._seen]:
                # What was held back was meant for the process after all.
                passed += keys[: self._seen]
                self._seen = 0
            if byte == keys[self._seen]:
                self._seen += 1
                if self._seen == len(keys):
                    self._seen = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False


class Client:
    """One attached client: a stream socket with output going out and input coming in."""

    def __init__(self, streams: Streams, sock: socket.socket, spec: AttachSpec) -> None:
        self._streams = streams
        self._sock = sock
        self._wanted = (1 if spec.stdout else 0) | (2 if spec.stderr else 0)
        self._reading = spec.stdin and streams.input is not None
        self._feeds = self._reading
        keys = DETACH_KEYS if spec.detach_keys is None else spec.detach_keys
        self.framed = not streams.terminal if spec.framed is None else spec.framed
        self._keys = DetachKeys(keys if streams.terminal else b"")
        self._pending: deque[memoryview] = deque()
        self._half_closed = False
        self._finishing = False
        if spec.prelude:
            self._queue(spec.prelude)
        self.watch()

    @property
    def slow(self) -> bool:
        """Whether it has not taken what it was sent."""
        return bool(self._pending)

    def wants(self, stream: int) -> bool:
        """Whether it is attached to the output 1 or 2."""
        return bool(self._wanted & stream)

    def send(self, header: bytes, data: bytes) -> None:
        """Send a block as far as the socket takes it, and the rest when it can."""
        if self._sock.fileno() < 0:
            return
        sent = 0
        if not self._pending:
            try:
                sent = self._sock.sendmsg([header, data] if header else [data], (), _FLAGS)
            except BlockingIOError:
                pass
            except OSError:
                self.drop()
                return
        size = len(header)
        if sent < size:
            self._queue(header[sent:])
            sent = size
        if sent < size + len(data):
            self._queue(memoryview(data)[sent - size :])
            self.watch()

    def finish(self, *, feed: bool = False) -> None:
        """Send nothing new, and close once it has everything; with ``feed`` after its input."""
        self._wanted = 0
        self._reading = self._reading and feed
        self._finishing = True
        if self._pending:
            self.watch()
        else:
            self._conclude()

    def drop(self) -> None:
        """Close now. A second call does nothing."""
        if self._sock.fileno() >= 0:
            self._streams.loop.forget(self._sock.fileno())
            self._sock.close()
            self._pending.clear()
            self._streams.client_left(self, feeds=self._feeds)

    def watch(self) -> None:
        """Listen for what matters now."""
        if self._sock.fileno() < 0:
            return
        source = self._streams.input
        self._reading = self._reading and source is not None and source.open
        stalled = self._reading and source is not None and source.full
        events = OUT if self._pending else 0
        if self._reading and not stalled:
            events |= IN
        elif not self._half_closed and not self._reading:
            events |= RDHUP
        if events == 0 and stalled:
            # A hang-up would be reported again and again, and what was sent before it is unread.
            self._streams.loop.forget(self._sock.fileno())
        else:
            self._streams.loop.watch(self._sock.fileno(), events, self._on_ready)

    def _queue(self, data: bytes | memoryview) -> None:
        self._pending.append(memoryview(data))

    def _on_ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if self._reading and events & (IN | HUP) and self._sock.fileno() >= 0:
            self._receive()
        elif events & HUP:
            self.drop()
        elif events & RDHUP:
            self._half_closed = True
            self.watch()

    def _flush(self) -> None:
        while self._pending:
            block = self._pending[0]
            try:
                sent = self._sock.send(block, _FLAGS)
            except BlockingIOError:
                return
            except OSError:
                self.drop()
                return
            if sent < len(block):
                self._pending[0] = block[sent:]
                return
            self._pending.popleft()
        if self._finishing:
            self._conclude()
        else:
            self.watch()
            self._streams.client_ready()

    def _conclude(self) -> None:
        if not self._reading:
            self.drop()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop()
            return
        self.watch()

    def _receive(self) -> None:
        source = self._streams.input
        if source is None or not source.open or source.full:
            self.watch()
            return
        try:
            data = self._sock.recv(BLOCK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if not data:
            self._end_of_input()
            return
        data, detached = self._keys.feed(data)
        if data:
            source.write(data)
        if detached:
            self._feeds = False
            self._streams.detached()
            self.finish()
            return
        self.watch()

    def _end_of_input(self) -> None:
        self._reading = False
        self._half_closed = True
        if self._finishing or not self._streams.client_closed_input():
            self.finish()
        else:
            self._feeds = False
            self.watch()
