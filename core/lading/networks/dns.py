"""The name server of the networks: one thread, UDP and TCP on each network's gateway address.

A query that no container's name answers goes to the servers of the container (``--dns``) or the
host's, one after the other, over the protocol that it came by. The servers' answers are passed on
as they are.
"""

from __future__ import annotations

import logging
import queue
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dnslib import RCODE

from lading.networks.answers import Elsewhere, answer, refused
from lading.networks.names import Names

PORT = 53
SERVER_SECONDS = 2.0
IDLE_SECONDS = 10.0
MAX_PENDING = 1024
MAX_MESSAGE = 65535

Reply = Callable[[bytes], None]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Stream:
    """One TCP connection: messages with their length before them, in both directions."""

    connection: socket.socket
    on_message: Callable[[bytes], None]
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)


@dataclass(eq=False)
class Pending:
    """A query that waits for a server's answer; ``servers`` are those not yet asked."""

    query: bytes
    reply: Reply
    servers: list[str]
    datagram: bool
    deadline: float = 0.0
    asked: socket.socket | Stream | None = None


class NameServer:
    """Listens on any number of addresses, and asks others, on ``port``.

    ``upstream`` tells the host's servers of now.
    """

    def __init__(
        self, names: Names, upstream: Callable[[], Sequence[str]], port: int = PORT
    ) -> None:
        self._names = names
        self._upstream = upstream
        self._port = port
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._listening: dict[str, list[socket.socket]] = {}
        self._pending: set[Pending] = set()
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._bell, self._rung = socket.socketpair()
        self._selector.register(self._rung, selectors.EVENT_READ, self._answer_bell)

    def listen(self, address: str) -> bool:
        """Serve on an address of the host; False, with a line in the log, when it cannot."""
        with self._lock:
            if address in self._listening:
                return True
            try:
                sockets = _listeners(address, self._port)
            except OSError as error:
                log.warning('name server on "%s": %s', address, error.strerror)
                return False
            self._listening[address] = sockets
            self._do(lambda: self._add(sockets))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dns", daemon=True)
                self._thread.start()
        return True

    def ignore(self, address: str) -> None:
        """Serve no more on an address; silent when it is not served."""
        with self._lock:
            sockets = self._listening.pop(address, [])
            if sockets:
                self._do(lambda: self._remove(sockets))

    def serves(self, address: str) -> bool:
        """Whether an address is served."""
        return address in self._listening

    def close(self) -> None:
        """End; queries in flight are dropped. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._do(lambda: None)
        if self._thread is not None:
            self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._bell.close()

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        self._bell.send(b"!")

    def _answer_bell(self) -> None:
        self._rung.recv(4096)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _add(self, sockets: Sequence[socket.socket]) -> None:
        datagram, listener = sockets
        self._selector.register(datagram, selectors.EVENT_READ, lambda: self._on_datagram(datagram))
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))

    def _remove(self, sockets: Sequence[socket.socket]) -> None:
        for one in sockets:
            self._selector.unregister(one)
            one.close()

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(self._timeout()):
                try:
                    key.data()
                except Exception:
                    log.exception("name server")
            self._expire()

    def _timeout(self) -> float | None:
        deadlines = [p.deadline for p in self._pending] + [s.deadline for s in self._streams]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _expire(self) -> None:
        now = time.monotonic()
        for pending in [p for p in self._pending if p.deadline <= now]:
            self._next_server(pending)
        for stream in [s for s in self._streams if s.deadline <= now]:
            self._drop(stream)

    # Queries

    def _on_datagram(self, listener: socket.socket) -> None:
        try:
            data, peer = listener.recvfrom(MAX_MESSAGE)
        except OSError:
            return

        def reply(packet: bytes) -> None:
            try:
                listener.sendto(packet, peer)
            except OSError as error:
                log.debug("answer to %s: %s", peer, error)

        self._query(data, str(peer[0]), reply, datagram=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        if len(self._streams) >= MAX_PENDING:
            connection.close()
            return

        def on_message(data: bytes) -> None:
            self._query(data, str(peer[0]), lambda p: self._send(stream, p), datagram=False)

        stream = self._stream(connection, on_message, IDLE_SECONDS)

    def _query(self, data: bytes, asker: str, reply: Reply, *, datagram: bool) -> None:
        found = answer(data, asker.removeprefix("::ffff:"), self._names, datagram=datagram)
        if isinstance(found, bytes):
            reply(found)
        elif isinstance(found, Elsewhere):
            servers = found.client.servers or self._upstream()
            # A server that is this one would ask itself for ever.
            others = [s for s in servers if s not in self._listening]
            pending = Pending(data, reply, others, datagram)
            self._pending.add(pending)
            if len(self._pending) > MAX_PENDING:
                pending.servers.clear()
            self._next_server(pending)

    # Servers behind

    def _next_server(self, pending: Pending) -> None:
        """Ask the next server, after the one before has failed; none left: say so."""
        self._forget(pending)
        while pending.servers:
            server = pending.servers.pop(0)
            try:
                self._ask(pending, server)
            except OSError as error:
                log.debug('ask name server "%s": %s', server, error)
                continue
            pending.deadline = time.monotonic() + SERVER_SECONDS
            self._pending.add(pending)
            return
        if (packet := refused(pending.query, RCODE.SERVFAIL)) is not None:
            pending.reply(packet)

    def _ask(self, pending: Pending, server: str) -> None:
        kind = socket.SOCK_DGRAM if pending.datagram else socket.SOCK_STREAM
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        asked = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        # Not the client's number: an answer must not be guessable from the query.
        number = secrets.token_bytes(2)
        query = number + pending.query[2:]
        try:
            if pending.datagram:
                asked.connect((server, self._port))
                asked.send(query)
            else:
                asked.connect_ex((server, self._port))
        except OSError:
            asked.close()
            raise
        if pending.datagram:
            pending.asked = asked
            self._selector.register(
                asked, selectors.EVENT_READ, lambda: self._on_answer(pending, asked, number)
            )
            return
        stream = self._stream(
            asked, lambda data: self._finish(pending, data, number), SERVER_SECONDS
        )
        pending.asked = stream
        self._send(stream, query)

    def _on_answer(self, pending: Pending, asked: socket.socket, number: bytes) -> None:
        try:
            data = asked.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            self._next_server(pending)
            return
        self._finish(pending, data, number)

    def _finish(self, pending: Pending, data: bytes, number: bytes) -> None:
        if data[:2] != number or pending not in self._pending:
            return
        self._forget(pending)
        pending.reply(pending.query[:2] + data[2:])

    def _forget(self, pending: Pending) -> None:
        self._pending.discard(pending)
        asked, pending.asked = pending.asked, None
        if isinstance(asked, Stream):
            self._drop(asked)
        elif asked is not None:
            self._selector.unregister(asked)
            asked.close()

    # Streams

    def _stream(
        self, connection: socket.socket, on_message: Callable[[bytes], None], seconds: float
    ) -> Stream:
        connection.setblocking(False)
        stream = Stream(connection, on_message, time.monotonic() + seconds)
        self._streams.add(stream)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._transfer(stream))
        return stream

    def _send(self, stream: Stream, packet: bytes) -> None:
        if stream not in self._streams:
            return
        stream.unsent += struct.pack("!H", len(packet)) + packet
        events = selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.modify(stream.connection, events, lambda: self._transfer(stream))

    def _transfer(self, stream: Stream) -> None:
        """Write what can be written, read what has come."""
        try:
            if stream.unsent:
                del stream.unsent[: stream.connection.send(stream.unsent)]
                if not stream.unsent:
                    self._selector.modify(
                        stream.connection, selectors.EVENT_READ, lambda: self._transfer(stream)
                    )
            data = stream.connection.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(stream)
            return
        stream.deadline = time.monotonic() + IDLE_SECONDS
        stream.received += data
        while len(stream.received) >= 2:
            size = int.from_bytes(stream.received[:2], "big")
            if len(stream.received) < 2 + size:
                return
            message = bytes(stream.received[2 : 2 + size])
            del stream.received[: 2 + size]
            stream.on_message(message)

    def _drop(self, stream: Stream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self._selector.unregister(stream.connection)
            stream.connection.close()
            for pending in [p for p in self._pending if p.asked is stream]:
                self._next_server(pending)


def _listeners(address: str, port: int) -> list[socket.socket]:
    """A UDP and a TCP socket on an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            one = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
            one.bind((address, port))
        made[1].listen(64)
    except OSError:
        for one in made:
            one.close()
        raise
    return made
