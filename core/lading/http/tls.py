"""TLS over a blocking socket, with each direction on its own.

OpenSSL works on memory buffers here, so a lock is held for the cryptography only and never while
a thread waits for the network: one thread may wait in ``recv`` while another sends.
``ssl.SSLSocket`` offers neither that nor a one-sided end: its ``unwrap`` waits for the peer's
close_notify.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from pathlib import Path

from lading.http.stream import CHUNK, PlainStream


class TLSStream:
    """A connected socket under TLS as a :class:`~lading.http.stream.Stream`."""

    plain = False

    def __init__(
        self, connected: socket.socket, tls: ssl.SSLObject, into: ssl.MemoryBIO, out: ssl.MemoryBIO
    ) -> None:
        self.socket = connected
        self.settimeout = connected.settimeout
        self.close = connected.close
        self._tls = tls
        self._in = into
        self._out = out
        self._state = threading.Lock()
        self._sending = threading.Lock()
        self._ended = False
        self._ahead: deque[bytes] = deque()

    @classmethod
    def handshake(
        cls, connected: socket.socket, context: ssl.SSLContext, *, server: str | None = None
    ) -> TLSStream:
        """Agree on keys: as a client of the host ``server``, or as a server when it is None.

        Raises ssl.SSLError or OSError; the socket is left to the caller then.
        """
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(into, out, server_side=server is None, server_hostname=server)
        stream = cls(connected, tls, into, out)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                stream._flush()
                stream._fill()
            except ssl.SSLError:
                stream._flush()  # the alert tells the peer why
                raise
            else:
                stream._flush()
                return stream

    @property
    def certificate(self) -> dict[str, object]:
        """The peer's certificate as :meth:`ssl.SSLSocket.getpeercert` gives it; empty for none."""
        return dict(self._tls.getpeercert() or {})

    def recv(self, size: int) -> bytes:
        """Wait for bytes; both close_notify and a bare end of the connection end the stream."""
        while True:
            with self._state:
                if self._ahead:
                    return self._take_ahead(size)
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            if self._out.pending and self._sending.acquire(blocking=False):
                # An answer of the protocol itself; a thread that sends would take it along.
                try:
                    self._drain()
                finally:
                    self._sending.release()
            self._fill()

    def _take_ahead(self, size: int) -> bytes:
        first = self._ahead.popleft()
        if len(first) > size:
            self._ahead.appendleft(first[size:])
        return first[:size]

    def _read_ahead(self) -> None:
        """Keep what has arrived: OpenSSL's shutdown reads as well, and drops the data it meets."""
        try:
            while data := self._tls.read(CHUNK):
                self._ahead.append(data)
        except ssl.SSLError:
            pass  # nothing more is here, or the end is, which the reader will meet again

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        view = memoryview(data)
        with self._sending:
            for start in range(0, len(view), CHUNK):
                with self._state:
                    self._tls.write(view[start : start + CHUNK])
                self._drain()

    def shutdown_write(self) -> None:
        """Send close_notify and FIN; what the peer still sends can be read."""
        with self._sending:
            if self._ended:
                return
            self._ended = True
            with self._state:
                self._read_ahead()
                try:
                    self._tls.unwrap()
                except (ssl.SSLError, OSError):
                    pass  # WantRead: sent, and the peer's is not here yet, which is all right
            try:
                self._drain()
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer was faster

    def shutdown(self) -> None:
        """End both directions."""
        PlainStream(self.socket).shutdown()

    def _flush(self) -> None:
        with self._sending:
            self._drain()

    def _drain(self) -> None:
        """Send what OpenSSL has made ready; ``_sending`` is held, so records stay in order."""
        while self._out.pending:
            with self._state:
                data = self._out.read()
            self.socket.sendall(data)

    def _fill(self) -> None:
        data = self.socket.recv(CHUNK)
        with self._state:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()


def server_context(
    certificate: Path, key: Path, *, client_authorities: Path | None = None
) -> ssl.SSLContext:
    """The context of a server; with ``client_authorities`` clients must show a certificate.

    Raises OSError and ssl.SSLError for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_authorities is not None:
        context.load_verify_locations(client_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    *,
    authorities: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """The context of a client; without ``authorities`` those of the system are trusted.

    Raises OSError and ssl.SSLError for files that cannot be used.
    """
    context = ssl.create_default_context(cafile=str(authorities) if authorities else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def directory_context(folder: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """The context of a client of one host, from a directory of ``certs.d``.

    It may hold authorities ``*.crt`` and pairs of ``*.cert`` and ``*.key`` to show to the host. The
    system's authorities are trusted as well; with authorities of its own, a host is always
    verified.
    Raises OSError and ssl.SSLError for files that cannot be used.
    """
    context = client_context(verify=verify)
    if folder is None:
        return context
    for authority in sorted(folder.glob("*.crt")):
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
    for certificate in sorted(folder.glob("*.cert")):
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context
