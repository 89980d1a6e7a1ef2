"""An HTTP/1.1 server: a thread per connection, blocking sockets, h11 for the protocol.

::

    server = Server(app, listen("unix:///run/x.sock", group="docker"))
    server.start()          # accepts in threads of its own
    server.stop(timeout)    # no new requests; running ones have `timeout` seconds

``app`` is called with each :class:`~lading.http.messages.Request` in the connection's thread and
returns a Response. It maps its own errors; what it lets through is logged and answered with 500.
Slow readers and writers hold up their own thread only, through the kernel's socket buffers.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lading.http._exchange import Exchange
from lading.http.listeners import Listener
from lading.http.messages import App, Peer
from lading.http.presence import Watch
from lading.http.stream import PlainStream, Stream
from lading.http.tls import TLSStream

log = logging.getLogger(__name__)

STOP_CHECK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server. Times in seconds, sizes in bytes.

    ``header_seconds`` counts from the first byte of a request (from the connection's start with
    TLS) to the end of its headers; ``idle_seconds`` is how long a connection may wait between
    requests, None for ever.
    """

    header_seconds: float = 20.0
    header_bytes: int = 256 * 1024
    idle_seconds: float | None = None
    connections: int = 10_000


class Server:
    """Serves an application on some listeners."""

    def __init__(
        self,
        app: App,
        listeners: Sequence[Listener],
        *,
        limits: Limits | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """``headers`` go with every response, those of errors in the protocol as well."""
        self.app = app
        self.listeners = tuple(listeners)
        self.limits = limits or Limits()
        self.headers = tuple((n.encode("ascii"), v.encode("latin-1")) for n, v in headers)
        self.watch = Watch()
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[Stream, Exchange | None] = {}
        self._accepting: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to accept connections; returns at once."""
        for listener in self.listeners:
            thread = threading.Thread(
                target=self._accept, args=(listener,), name=f"accept {listener.address}"
            )
            thread.start()
            self._accepting.append(thread)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop listening, let running requests end within ``timeout`` seconds, cut the rest.

        A second call does nothing.
        """
        if self.stopping.is_set():
            return
        self.stopping.set()
        for listener in self.listeners:
            # close() alone would leave the thread in accept(); shutdown() wakes it.
            PlainStream(listener.socket).shutdown()
        for thread in self._accepting:
            thread.join()
        for listener in self.listeners:
            listener.close()
        self._cut(lambda exchange: exchange is None or exchange.idle)
        give_up = time.monotonic() + timeout
        while self._count() and time.monotonic() < give_up:
            time.sleep(STOP_CHECK_SECONDS)
        self._cut(lambda exchange: True)
        give_up = time.monotonic() + 1
        while self._count() and time.monotonic() < give_up:
            time.sleep(STOP_CHECK_SECONDS)
        self.watch.close()

    def _count(self) -> int:
        with self._lock:
            return len(self._open)

    def _cut(self, chosen: Callable[[Exchange | None], bool]) -> None:
        """Cut the connections that are chosen; their threads then end by themselves."""
        with self._lock:
            for stream, exchange in self._open.items():
                if chosen(exchange):
                    stream.shutdown()

    def _accept(self, listener: Listener) -> None:
        while not self.stopping.is_set():
            try:
                connected, address = listener.socket.accept()
            except OSError as error:
                if self.stopping.is_set():
                    return
                # Out of descriptors, mostly: others must close theirs first.
                log.warning('accept on "%s": %s', listener.address, error)
                time.sleep(STOP_CHECK_SECONDS)
                continue
            if self._count() >= self.limits.connections:
                log.warning('accept on "%s": too many connections', listener.address)
                connected.close()
                continue
            threading.Thread(
                target=self._serve,
                args=(connected, address, listener),
                name=f"http {listener.address}",
                daemon=True,
            ).start()

    def _serve(self, connected: socket.socket, address: object, listener: Listener) -> None:
        stream: Stream = PlainStream(connected)
        try:
            with self._lock:
                self._open[stream] = None
            peer = _peer(connected, address)
            if listener.tls is not None:
                secured = self._handshake(connected, listener.tls)
                with self._lock:
                    self._open[secured] = self._open.pop(stream)
                stream = secured
                peer = Peer(address=peer.address, certificate=_common_name(secured.certificate))
            exchange = Exchange(self, stream, peer)
            with self._lock:
                self._open[stream] = exchange
            exchange.run()
        except (OSError, ssl.SSLError) as error:
            log.debug('connection on "%s": %s', listener.address, error)
        except Exception:
            log.exception('connection on "%s"', listener.address)
        finally:
            with self._lock:
                self._open.pop(stream, None)
            stream.close()

    def _handshake(self, connected: socket.socket, tls: ssl.SSLContext) -> TLSStream:
        connected.settimeout(self.limits.header_seconds)
        stream = TLSStream.handshake(connected, tls)
        connected.settimeout(None)
        return stream


def _peer(connected: socket.socket, address: object) -> Peer:
    if connected.family == socket.AF_UNIX:
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, gid = struct.unpack("3i", raw)
        return Peer(pid=pid, uid=uid, gid=gid)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Peer(address=str(address[0]) if isinstance(address, tuple) else "")


def _common_name(certificate: dict[str, object]) -> str:
    subject = certificate.get("subject", ())
    pairs = [pair for part in subject for pair in part] if isinstance(subject, tuple) else []
    return next((value for name, value in pairs if name == "commonName"), "")
