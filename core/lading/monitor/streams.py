"""The standard streams of one process: from its pipes or terminal to the log and to clients.

::

    stdin  ◀── Input ◀──┐                      ┌──▶ log
                        ├── Client (a socket) ◀┤
    stdout ──▶ Output ──┼──────────────────────┤
    stderr ──▶ Output ──┘

Nothing here grows: an Output reads its next block only when every attached client has taken the
one before, a client is read only when its last block is in the pipe. So a slow client slows the
process down, by way of the kernel's buffers.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from lading.monitor.launch import DETACH_KEYS, AttachSpec
from lading.monitor.loop import HUP, IN, OUT, RDHUP, Loop

#: The most that is read at once: what a pipe holds.
BLOCK: Final = 65536
#: After the process has ended, how long its outputs may stay silent (in seconds), and stay open
#: at all, when another process still holds them.
QUIET: Final = 0.2
LINGER: Final = 2.0

_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Sink(Protocol):
    """Where all output goes besides the clients."""

    def write(self, stream: int, data: bytes) -> None:
        """Take output of descriptor 1 or 2."""
        ...


class Output:
    """Reads one output of the process and hands it on."""

    def __init__(self, streams: Streams, fd: int, stream: int) -> None:
        self._streams = streams
        self._fd = fd
        self.stream = stream
        os.set_blocking(fd, False)
        self.resume()

    @property
    def open(self) -> bool:
        """Whether the end has not been seen yet."""
        return self._fd >= 0

    def resume(self) -> None:
        """Read on."""
        if self._fd >= 0:
            self._streams.loop.watch(self._fd, IN, self._on_ready)

    def pause(self) -> None:
        """Read no more; the process will block once the pipe is full."""
        if self._fd >= 0:
            self._streams.loop.forget(self._fd)

    def drain(self) -> None:
        """Read what is there now, at most what a pipe holds, whether clients are slow or not."""
        left = 16 * BLOCK
        while left > 0 and self._fd >= 0:
            taken = self._read()
            if not taken:
                return
            left -= taken

    def close(self) -> None:
        """Give the output up. A second call does nothing."""
        if self._fd >= 0:
            self._streams.loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_ready(self, events: int) -> None:
        if self._read():
            self._streams.throttle(self)

    def _read(self) -> int:
        try:
            data = os.read(self._fd, BLOCK)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: nobody has the terminal open any more
        if data:
            self._streams.deliver(self.stream, data)
        else:
            self.close()
            self._streams.output_ended()
        return len(data)


class Input:
    """Writes what clients send to the process's standard input."""

    def __init__(self, loop: Loop, fd: int, drained: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._drained = drained
        self._pending = b""
        self._closing = False
        os.set_blocking(fd, False)

    @property
    def open(self) -> bool:
        """Whether more may be written."""
        return self._fd >= 0 and not self._closing

    @property
    def full(self) -> bool:
        """Whether the process has not taken the last block yet."""
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        """Take a block; only when not :attr:`full`."""
        self._pending = data
        self._push()

    def finish(self) -> None:
        """Close after what is pending. A second call does nothing."""
        self._closing = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close now. A second call does nothing."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._pending = b""

    def _push(self) -> None:
        try:
            written = os.write(self._fd, self._pending)
        except BlockingIOError:
            written = 0
        except OSError:
            self.close()  # EPIPE: nobody reads it
            return
        self._pending = self._pending[written:]
        if self._pending:
            self._loop.watch(self._fd, OUT, self._on_ready)
        else:
            self._loop.forget(self._fd)

    def _on_ready(self, events: int) -> None:
        self._push()
        if self._pending:
            return
        if self._closing:
            self.close()
        self._drained()


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


class Streams:
    """All of one process's streams with the clients attached to them.

    ``input_once`` closes the input when the first client that feeds it leaves or half-closes.
    ``detached`` is called when a client leaves by its detach keys.
    """

    def __init__(
        self,
        loop: Loop,
        sink: Sink,
        *,
        terminal: bool,
        input_once: bool,
        detached: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.terminal = terminal
        self.input: Input | None = None
        self.detached = detached
        self._sink = sink
        self._input_once = input_once
        self._outputs: list[Output] = []
        self._clients: list[Client] = []
        self._delivered = 0
        self._ended = False
        self._settled = False
        self._on_end: Callable[[], None] = _nothing
        self._on_idle: Callable[[], None] = _nothing

    @property
    def idle(self) -> bool:
        """Whether the process has ended and no client waits for anything any more."""
        return self._settled and not self._clients

    def open(self, stdin: int, stdout: int, stderr: int) -> None:
        """Take the monitor's ends of the process's streams; -1 for those it has not."""
        if stdin >= 0:
            self.input = Input(self.loop, stdin, self._input_drained)
        for stream, fd in ((1, stdout), (2, stderr)):
            if fd >= 0:
                self._outputs.append(Output(self, fd, stream))

    def attach(self, sock: socket.socket, spec: AttachSpec) -> None:
        """Attach a client from now on."""
        client = Client(self, sock, spec)
        self._clients.append(client)
        if self._outputs and not any(o.open for o in self._outputs):
            client.finish(feed=True)

    def close_input(self) -> None:
        """Close the process's input after what is pending; nothing for a terminal."""
        if self.input is not None and not self.terminal:
            self.input.finish()

    def end(self, on_end: Callable[[], None], on_idle: Callable[[], None]) -> None:
        """The process has ended: deliver what is left, call ``on_end``, let the clients go.

        ``on_idle`` is called, perhaps more than once, when no client is left after that.
        """
        self._ended = True
        self._on_end, self._on_idle = on_end, on_idle
        if self.input is not None:
            self.input.close()
        for output in self._outputs:
            output.drain()
        if any(o.open for o in self._outputs):
            self._linger(time.monotonic() + LINGER)
        else:
            self._settle()

    def deliver(self, stream: int, data: bytes) -> None:
        """Hand output to the sink and to all clients that want it."""
        self._delivered += 1
        self._sink.write(stream, data)
        if not self._clients:
            return
        header = b""
        if not self.terminal:
            header = bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big")
        for client in tuple(self._clients):
            if client.wants(stream):
                client.send(header, data)

    def throttle(self, output: Output) -> None:
        """Pause an output while a client of it is slow."""
        if any(c.slow and c.wants(output.stream) for c in self._clients):
            output.pause()

    def client_ready(self) -> None:
        """A client has taken everything: read on, unless another one is slow."""
        for output in self._outputs:
            if not any(c.slow and c.wants(output.stream) for c in self._clients):
                output.resume()

    def client_left(self, client: Client, *, feeds: bool) -> None:
        """A client is gone."""
        self._clients.remove(client)
        if feeds and self._input_once:
            self.close_input()
        self.client_ready()
        if self.idle:
            self._on_idle()

    def client_closed_input(self) -> bool:
        """A client will send no more; False when it has no business here any longer.

        As with Docker: one whose input stays open for others has then left.
        """
        if self._input_once and not self.terminal:
            self.close_input()
            return True
        return False

    def output_ended(self) -> None:
        """One output is at its end: clients that wait for no other are done."""
        if any(o.open for o in self._outputs):
            return
        if self._ended:
            self._settle()
        else:
            self._release_clients(feed=True)

    def _input_drained(self) -> None:
        for client in self._clients:
            client.watch()

    def _release_clients(self, *, feed: bool) -> None:
        for client in tuple(self._clients):
            client.finish(feed=feed)

    def _linger(self, deadline: float) -> None:
        """Another process holds the outputs: wait for it to fall silent, but not for long."""
        before = self._delivered

        def check() -> None:
            if self._settled:
                return
            if self._delivered == before or time.monotonic() >= deadline:
                for output in self._outputs:
                    output.drain()
                self._settle()
            else:
                self._linger(deadline)

        self.loop.later(QUIET, check)

    def _settle(self) -> None:
        if self._settled:
            return
        self._settled = True
        for output in self._outputs:
            output.close()
        self._on_end()
        self._release_clients(feed=False)
        if self.idle:
            self._on_idle()


def _nothing() -> None:
    """The callback before there is one."""
