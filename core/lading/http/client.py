"""A small HTTP/1.1 client for unix sockets, TCP and TLS.

It streams bodies both ways, hands over the raw connection after an upgrade, and imports only
``socket`` (``ssl`` when it is used): a command line pays for every import.

::

    client = Client("unix:///run/lading.sock")
    with client.request("GET", "/containers/json", query={"all": "1"}) as response:
        print(response.json())
    with client.upgrade("POST", "/containers/x/attach", query={"stdin": "1", "stream": "1"}) as raw:
        raw.sendall(b"hello"); raw.shutdown_write()

A client may be used by several threads; each request has a connection of its own, which is kept
for the next one when the body was read to its end.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lading.errors import Invalid, Unavailable
from lading.http._connection import Connection, Readable, Upload
from lading.http.stream import CHUNK, PlainStream, Stream

if TYPE_CHECKING:
    import ssl

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:")


RequestBody = bytes | Readable | Iterable[bytes] | None


class Client:
    """Requests to one host: ``unix:///path``, ``tcp://host:port``, ``http(s)://host:port``."""

    def __init__(
        self,
        host: str,
        *,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """``timeout`` limits connecting and each wait for the peer; ``headers`` go with every
        request. Raises Invalid for a host of another form."""
        scheme, _, rest = host.partition("://")
        if scheme not in ("unix", "tcp", "http", "https") or not rest:
            raise Invalid(f'host "{host}": not unix://PATH or tcp://HOST:PORT')
        self.host = host
        self._unix = rest if scheme == "unix" else ""
        self._prefix = "" if self._unix else "/" + rest.partition("/")[2].rstrip("/")
        self._prefix = self._prefix if self._prefix != "/" else ""
        self._address = _address(rest.partition("/")[0], 443 if scheme == "https" else 80)
        self._tls = tls or (_default_context() if scheme == "https" else None)
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._idle: list[Connection] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: RequestBody = None,
    ) -> Response:
        """Send a request and return when the response's headers are here.

        ``query`` values may be lists; None is left out. A body that is no ``bytes`` is sent in
        chunks as it is read. Raises Unavailable when the host cannot be reached or breaks off.
        """
        head = self._head(method, path, query, headers, body)
        replayable = body is None or isinstance(body, bytes)
        if replayable and (kept := self._kept()):
            try:
                return self._exchange(kept, method, head, body)
            except OSError:
                kept.stream.close()  # it had ended while it was idle
        connection = self._connect()
        try:
            return self._exchange(connection, method, head, body)
        except OSError as error:
            connection.stream.close()
            raise Unavailable(f'{method} "{self.host}{path}": {_reason(error)}') from error
        except BaseException:
            connection.stream.close()
            raise

    def upgrade(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        protocol: str = "tcp",
    ) -> Upgraded:
        """Ask for the raw connection. When the server declines, ``status`` is another than 101
        or 200 and ``response`` has the error's body."""
        wish = {"Connection": "Upgrade", "Upgrade": protocol, **(headers or {})}
        head = self._head(method, path, query, wish, body)
        connection = self._connect()
        try:
            response = self._exchange(connection, method, head, body, keep=False)
        except OSError as error:
            connection.stream.close()
            raise Unavailable(f'{method} "{self.host}{path}": {_reason(error)}') from error
        return Upgraded(connection, response)

    def close(self) -> None:
        """Close the connections that are kept."""
        while connection := self._kept():
            connection.stream.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _kept(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> Connection:
        try:
            if self._unix:
                plain = socket.socket(socket.AF_UNIX)
                plain.settimeout(self._timeout)
                plain.connect(self._unix)
            else:
                plain = socket.create_connection(self._address, self._timeout)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Connection(self._wrapped(plain))
        except OSError as error:
            raise Unavailable(f'connect to "{self.host}": {_reason(error)}') from error

    def _wrapped(self, plain: socket.socket) -> Stream:
        if self._tls is None:
            return PlainStream(plain)
        # Late: `ssl` costs a command line several milliseconds.
        from lading.http.tls import TLSStream

        try:
            return TLSStream.handshake(plain, self._tls, server=self._address[0])
        except OSError:
            plain.close()
            raise

    def _head(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        body: RequestBody,
    ) -> bytes:
        merged = {"Host": self._host_header(), **self._headers, **(headers or {})}
        if isinstance(body, bytes):
            merged["Content-Length"] = str(len(body))
        elif body is not None:
            merged["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            merged["Content-Length"] = "0"
        lines = [f"{method} {self._prefix}{quote(path)}{_query(query)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in merged.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise Invalid(f"{method} {path!r}: line break in a header")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _host_header(self) -> str:
        if self._unix:
            return "localhost"
        host, port = self._address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _exchange(
        self,
        connection: Connection,
        method: str,
        head: bytes,
        body: RequestBody,
        *,
        keep: bool = True,
    ) -> Response:
        upload = None
        if body is None or isinstance(body, bytes):
            connection.stream.sendall(head + (body or b""))
        else:
            upload = Upload(connection.stream, head, body)
        try:
            status, headers = connection.read_head()
        except OSError:
            if upload is not None:
                upload.check()
            raise
        return Response(connection, method, status, headers, self._idle if keep else None, upload)


class Response:
    """A response: ``status``, ``reason``, ``headers`` (names in lower case) and the body.

    The body is streamed: :meth:`read`, iteration over pieces as they come, :meth:`lines`, or
    :meth:`json`. A context manager, which closes what was not read.
    """

    def __init__(
        self,
        connection: Connection,
        method: str,
        status: tuple[int, str],
        headers: dict[str, str],
        pool: list[Connection] | None,
        upload: Upload | None = None,
    ) -> None:
        self.status, self.reason = status
        self.headers = headers
        self._connection = connection
        self._upload = upload
        self._pool = pool if headers.get("connection", "").lower() != "close" else None
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._left: int | None = None
        if method == "HEAD" or self.status in (101, 204, 304):
            self._left, self._chunked = 0, False
        elif self._chunked:
            self._left = 0
        elif "content-length" in headers:
            self._left = int(headers["content-length"])
        self._done = False
        if self._left == 0 and not self._chunked and self.status != 101:
            self._finish()

    def read1(self, size: int = CHUNK) -> bytes:
        """The next bytes of the body, at most ``size``, as soon as there are some; none at the end.

        Raises Unavailable when the connection breaks off before the end.
        """
        if self._done or size == 0:
            return b""
        try:
            if self._chunked and self._left == 0:
                self._left = self._connection.chunk_size()
                if self._left == 0:
                    self._connection.read_headers()
                    self._finish()
                    return b""
            data = self._connection.read1(size if self._left is None else min(size, self._left))
        except OSError as error:
            self.close()
            raise Unavailable(f"read the response: {_reason(error)}") from error
        return self._advanced(data)

    def _advanced(self, data: bytes) -> bytes:
        if self._left is None:
            if not data:
                self.close()
            return data
        if not data:
            self.close()
            raise Unavailable("read the response: the connection ended too early")
        self._left -= len(data)
        if self._left == 0:
            if self._chunked:
                self._connection.expect_line_end()
            else:
                self._finish()
        return data

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end; all of the body when ``size`` is negative."""
        parts, missing = [], size
        while missing:
            data = self.read1(missing if missing > 0 else CHUNK)
            if not data:
                break
            parts.append(data)
            missing -= len(data) if missing > 0 else 0
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read1():
            yield data

    def lines(self) -> Iterator[bytes]:
        """The body by lines, each as soon as it is complete, without the line end."""
        rest = b""
        for data in self:
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def json(self) -> Any:
        """The whole body as JSON; None when it is empty."""
        data = self.read()
        return json.loads(data) if data.strip() else None

    def close(self) -> None:
        """Give the connection up; may be repeated."""
        if not self._done:
            self._done = True
            self._connection.stream.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _finish(self) -> None:
        self._done = True
        if self._pool is not None and (self._upload is None or self._upload.complete):
            self._pool.append(self._connection)
        else:
            self._connection.stream.close()


class Upgraded:
    """The raw connection after :meth:`Client.upgrade`, with what the server sent at first."""

    def __init__(self, connection: Connection, response: Response) -> None:
        self.status = response.status
        self.headers = response.headers
        self.response = response
        self._connection = connection
        self.stream = connection.stream

    @property
    def accepted(self) -> bool:
        """Whether the connection is raw now; else ``response`` tells why not."""
        return self.status in (101, 200)

    def recv(self, size: int = CHUNK) -> bytes:
        """Wait for some bytes; none when the peer has ended its side."""
        return self._connection.read1(size)

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        self.stream.sendall(data)

    def shutdown_write(self) -> None:
        """Tell the peer that no more will be sent; reading goes on."""
        self.stream.shutdown_write()

    def shutdown(self) -> None:
        """End both directions; a thread that waits in :meth:`recv` returns."""
        self.stream.shutdown()

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self.stream.socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()

    def __enter__(self) -> Upgraded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def quote(text: str, safe: frozenset[int] = _SAFE) -> str:
    """Text as it may stand in a path; other characters become ``%XX`` of their UTF-8."""
    return "".join(chr(c) if c in safe else f"%{c:02X}" for c in text.encode())


def _query(query: Mapping[str, Any] | None) -> str:
    pairs = []
    for name, value in (query or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [f"{_word(name)}={_word(_text(v))}" for v in values if v is not None]
    return "?" + "&".join(pairs) if pairs else ""


def _word(text: str) -> str:
    return quote(text, _SAFE - frozenset(b"/:"))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _address(authority: str, default: int) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        return authority.strip("[]"), default
    if not port.isdigit():
        raise Invalid(f'address "{authority}": the port is not a number')
    return host.strip("[]"), int(port)


def _default_context() -> ssl.SSLContext:
    from lading.http.tls import client_context  # late, as above

    return client_context()


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
