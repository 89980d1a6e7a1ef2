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
from collections.abc import Callable
from typing import Final, Protocol

from lading.monitor.attach import BLOCK, Client
from lading.monitor.launch import AttachSpec
from lading.monitor.loop import IN, OUT, Loop

#: After the process has ended, how long its outputs may stay silent (in seconds), and stay open
#: at all, when another process still holds them.
QUIET: Final = 0.2
LINGER: Final = 2.0


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
        header = bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big")
        for client in tuple(self._clients):
            if client.wants(stream):
                client.send(header if client.framed else b"", data)

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
