"""Carrying to published ports what no rule of the firewall can lead there.

The sockets come as :class:`lading.networks.ports.Bundle` keeps them. As long as nobody connects,
they cost the monitor one descriptor that it watches. The first client has it fork a process that
carries the bytes, and that ends when there has been nothing to do for a while: the sockets stay
where they are, so the next client has the next one forked.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from lading.monitor import process
from lading.monitor.loop import IN, OUT, Loop

#: How long a process that has nothing to carry stays, in seconds.
IDLE: Final = 10.0
#: How long answers to a datagram are expected, as dockerd's proxy does.
DATAGRAM_SECONDS: Final = 90.0
#: Until a relay that failed is forked again, and a listener that got no descriptor tries again.
PAUSE: Final = 1.0

_CHUNK: Final = 1 << 16
#: include/uapi/asm-generic/socket.h: where MSG_PEEK goes on.
_SO_PEEK_OFF: Final = 42
_AT_ONCE: Final = 253  # SCM_MAX_FD

Adopt = Callable[[int, Callable[[int], None]], None]


class Relay:
    """The monitor's part: has a process carry when there is something to be carried.

    ``ready`` is readable then, ``sockets`` holds them; ``adopt`` makes known who to call with the
    status of a child. Why one failed is written to the file ``log``.
    """

    def __init__(self, loop: Loop, ready: int, sockets: int, adopt: Adopt, log: Path) -> None:
        self._loop = loop
        self._ready = ready
        self._sockets = sockets
        self._adopt = adopt
        self._log = log
        self._child = 0
        self._watch()

    def _watch(self) -> None:
        if self._ready >= 0:
            self._loop.watch(self._ready, IN, self._on_ready)

    def _on_ready(self, events: int) -> None:
        self._loop.forget(self._ready)
        try:
            self._child = _fork(self._sockets, self._log)
        except OSError:
            self._loop.later(PAUSE, self._watch)
            return
        self._adopt(self._child, self._ended)

    def _ended(self, status: int) -> None:
        self._child = 0
        if status == 0:
            self._watch()
        else:
            self._loop.later(PAUSE, self._watch)

    def close(self) -> None:
        """Carry nothing any more and let go of the ports."""
        self._loop.forget(self._ready)
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._adopt(self._child, _nothing)
        os.close(self._ready)
        os.close(self._sockets)
        self._ready = -1


def _nothing(status: int) -> None:
    """What the end of a child means that was waited for."""


def _fork(sockets: int, log: Path) -> int:
    parent = os.getpid()
    if (pid := os.fork()) != 0:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.die_with_parent(parent)
        process.set_name("lading-relay")
        process.oom_score_adj(0)
        # The container's streams must not stay open because of this process.
        if sockets != 3:  # dup3(2) refuses to do nothing
            os.dup2(sockets, 3, inheritable=False)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        _Carrier(socket.socket(fileno=3)).run()
        status = 0
    except BaseException as error:
        import traceback  # only a relay that fails needs it

        log.write_text("".join(traceback.format_exception(error)))
    finally:
        os._exit(status)


def unpack(sockets: socket.socket) -> Iterator[tuple[socket.socket, str, int]]:
    """Each socket with the address and port that it leads to; they stay in the queue as well."""
    sockets.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
    space = socket.CMSG_SPACE(_AT_ONCE * 4)
    while True:
        try:
            note, ancillary, _, _ = sockets.recvmsg(
                _CHUNK, space, socket.MSG_PEEK | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        if not note:
            return
        address, ports = json.loads(note)
        fds = array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        for fd, port in zip(fds, ports, strict=True):
            yield socket.socket(fileno=fd), address, port


class _Carrier:
    """All that is carried for one container."""

    def __init__(self, sockets: socket.socket) -> None:
        self._loop = Loop()
        self._over = False
        self._busy = 0
        self._last = time.monotonic()
        for one, address, port in unpack(sockets):
            one.setblocking(False)
            kind = _Datagrams if one.type == socket.SOCK_DGRAM else _Listener
            kind(self._loop, one, (address, port), self._count).serve()

    def _count(self, change: int) -> None:
        """So many more connections, or fewer."""
        self._busy += change
        self._last = time.monotonic()

    def run(self) -> None:
        """Carry until there has been nothing to carry for a while."""
        self._look()
        while not self._over:
            self._loop.step()

    def _look(self) -> None:
        self._over = not self._busy and time.monotonic() > self._last + IDLE
        self._loop.later(IDLE / 2, self._look)


class _Port:
    """What comes to one socket, and the address and port that it goes to."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        target: tuple[str, int],
        count: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._target = target
        self._count = count


class _Listener(_Port):
    """Connections to one port."""

    def serve(self) -> None:
        """Take them from now on."""
        self._watch()

    def _watch(self) -> None:
        self._loop.watch(self._socket.fileno(), IN, self._on_client)

    def _on_client(self, events: int) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._loop.forget(self._socket.fileno())
                self._loop.later(PAUSE, self._watch)
            return
        try:
            server = _towards(self._target, self._socket)
        except OSError:
            client.close()
            return
        client.setblocking(False)
        _Connection(self._loop, client, server, self._count)


def _towards(target: tuple[str, int], like: socket.socket) -> socket.socket:
    """A socket on its way to ``target``. Raises OSError."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = socket.socket(family, like.type, like.proto)
    sock.setblocking(False)
    failed = sock.connect_ex(target)
    if failed not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(failed, os.strerror(failed))
    return sock


class _End:
    """One side of a connection: ``pending`` is what it is still to be sent."""

    __slots__ = ("ended", "other", "pending", "shut", "socket")

    other: _End

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.pending = b""
        #: It sends no more; it has been told that there is no more for it.
        self.ended = self.shut = False
        if sock.proto == socket.IPPROTO_TCP:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Connection:
    """Both ways of one connection, each of which may end before the other."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        server: socket.socket,
        count: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._count = count
        self._client, self._server = _End(client), _End(server)
        self._client.other, self._server.other = self._server, self._client
        count(1)
        # What ends before it is connected would be reset, not half-closed: the client waits.
        loop.watch(server.fileno(), OUT, self._on_connected)

    def _on_connected(self, events: int) -> None:
        if self._server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close()
            return
        for end in (self._server, self._client):
            self._watch(end)

    def _watch(self, end: _End) -> None:
        wanted = 0 if end.ended or end.other.pending else IN
        wanted |= OUT if end.pending else 0
        if wanted:
            self._loop.watch(end.socket.fileno(), wanted, lambda events: self._on_event(end))
        else:
            # A hang-up would be reported over and over.
            self._loop.forget(end.socket.fileno())

    def _on_event(self, end: _End) -> None:
        try:
            if end.pending:
                self._send(end)
            if not end.ended and not end.other.pending:
                self._receive(end)
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        if self._client.shut and self._server.shut:
            self._close()
            return
        self._watch(end)
        self._watch(end.other)

    def _receive(self, end: _End) -> None:
        data = end.socket.recv(_CHUNK)
        end.ended = not data
        end.other.pending = data
        self._send(end.other)

    def _send(self, end: _End) -> None:
        while end.pending:
            try:
                sent = end.socket.send(end.pending)
            except BlockingIOError:
                return
            end.pending = end.pending[sent:]
        if end.other.ended and not end.shut:
            end.shut = True
            end.socket.shutdown(socket.SHUT_WR)

    def _close(self) -> None:
        for end in (self._client, self._server):
            self._loop.forget(end.socket.fileno())
            end.socket.close()
        self._count(-1)


class _Datagrams(_Port):
    """Datagrams to one port: a socket towards the container for each client."""

    def serve(self) -> None:
        """Take them from now on."""
        self._sessions: dict[object, _Session] = {}
        if self._socket.family == socket.AF_INET6:
            # Answers must come from the address that was asked.
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._loop.watch(self._socket.fileno(), IN, self._on_datagram)

    def _on_datagram(self, events: int) -> None:
        try:
            data, ancillary, _, client = self._socket.recvmsg(_CHUNK, 128)
            source = [(level, kind, _from(info)) for level, kind, info in ancillary]
            session = self._session(client, source)
            session.last = time.monotonic()
            session.socket.send(data)
        except OSError:
            return  # lost, as datagrams may be

    def _session(self, client: tuple[Any, ...], source: list[tuple[int, int, bytes]]) -> _Session:
        key = (client, *source)
        if (found := self._sessions.get(key)) is not None:
            return found
        made = self._sessions[key] = _Session(_towards(self._target, self._socket))
        self._count(1)

        def answer(events: int) -> None:
            try:
                self._socket.sendmsg([made.socket.recv(_CHUNK)], source, 0, client)
                made.last = time.monotonic()
            except OSError:
                pass  # nobody listens in the container, or the client is gone

        def expire() -> None:
            left = made.last + DATAGRAM_SECONDS - time.monotonic()
            if left > 0:
                self._loop.later(left, expire)
                return
            self._loop.forget(made.socket.fileno())
            made.socket.close()
            del self._sessions[key]
            self._count(-1)

        self._loop.watch(made.socket.fileno(), IN, answer)
        self._loop.later(DATAGRAM_SECONDS, expire)
        return made


class _Session:
    __slots__ = ("last", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.last = time.monotonic()


def _from(info: bytes) -> bytes:
    """The in6_pktinfo of a datagram as that of its answer: routing chooses the interface."""
    link_local = info[0] == 0xFE and info[1] & 0xC0 == 0x80
    return info if link_local else info[:16] + bytes(4)
