"""One connection's requests and responses, in order, in the connection's thread."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from lading.errors import Invalid
from lading.http.messages import (
    Connection,
    FileResponse,
    Headers,
    Hijack,
    Peer,
    Push,
    Request,
    Response,
)
from lading.http.presence import ClientPresence
from lading.http.stream import CHUNK, Stream

if TYPE_CHECKING:
    from lading.http.server import Server

log = logging.getLogger(__name__)

# A body that a handler did not want is read up to here, so that the connection can be kept.
DRAIN_BYTES = 256 * 1024
LINGER_SECONDS = 0.5
# Smaller parts are joined into one write; larger ones are not worth a copy.
JOIN_BYTES = 64 * 1024
_NO_BODY = frozenset((204, 304))


class Exchange:
    """Serves one connection until it ends."""

    def __init__(self, server: Server, stream: Stream, peer: Peer) -> None:
        self._server = server
        self._stream = stream
        self._peer = peer
        self._presence = ClientPresence(stream.socket, server.watch)
        self._http = h11.Connection(
            h11.SERVER, max_incomplete_event_size=server.limits.header_bytes
        )
        self.idle = True

    def run(self) -> None:
        """Serve requests until the client or the server wants no more. Raises OSError."""
        while not self._server.stopping.is_set():
            try:
                event = self._next_request()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, str(error))
                return
            except TimeoutError:
                if not self.idle:
                    self._refuse(408, "the headers took too long")
                return
            if event is None:
                return
            self.idle = False
            if not self._answer(event):
                return
            self._http.start_next_cycle()
            self.idle = True

    def _next_request(self) -> h11.Request | None:
        """The next request; None when the client has ended the connection."""
        limits = self._server.limits
        self._stream.settimeout(limits.idle_seconds)
        deadline = 0.0
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._stream.settimeout(None)
                return event
            if event is not h11.NEED_DATA:
                return None
            data = self._stream.recv(CHUNK)
            if data and self.idle:
                self.idle = False
                deadline = time.monotonic() + limits.header_seconds
            self._http.receive_data(data)
            if not self.idle:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._stream.settimeout(left)

    def _answer(self, event: h11.Request) -> bool:
        """Handle one request; whether the connection may go on."""
        body = _Body(self._http, self._stream)
        request = Request(
            method=event.method.decode("ascii"),
            target=event.target.decode("latin-1"),
            headers=Headers((n.decode("ascii"), v.decode("latin-1")) for n, v in event.headers),
            body=body,
            peer=self._peer,
            presence=self._presence,
        )
        response = self._call(request)
        if isinstance(response, Hijack):
            self._hijack(request, response, body)
            return False
        self._send(response, request, body)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            return True
        self._linger()
        return False

    def _call(self, request: Request) -> Response:
        try:
            return self._server.app(request)
        except ConnectionError:
            raise
        except Invalid as error:
            return Response.text(str(error), error.status)
        except Exception:
            log.exception("%s %s", request.method, request.target)
            return Response.text("internal error; the server's log has more", 500)

    def _send(self, response: Response, request: Request, rest: _Body) -> None:
        content = response.body
        silent = request.method == "HEAD" or response.status in _NO_BODY
        if isinstance(response, Push):
            self._send_pushed(response, request, rest)
        elif isinstance(content, bytes):
            # A streamed response may still be reading the request while it is sent; this is none.
            head = self._http.send(self._head(response, keep=rest.finish())) or b""
            if isinstance(response, FileResponse):
                self._send_file(response, head, silent=silent)
            else:
                data = b"" if silent or not content else self._http.send(h11.Data(data=content))
                self._write([head, data, self._http.send(h11.EndOfMessage())])
        else:
            self._stream.sendall(self._http.send(self._head(response, keep=True)) or b"")
            self._send_pieces(iter(content), silent=silent)
            rest.finish()

    def _send_pushed(self, response: Push, request: Request, rest: _Body) -> None:
        assert response.write is not None
        head = self._head(response, keep=True, sized=False)
        begun = False

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                self._write([self._http.send(head)])

        def send(piece: bytes) -> None:
            begin()
            if piece:
                self._write(self._http.send_with_data_passthrough(h11.Data(data=piece)) or [])

        try:
            response.write(send)
        except Exception as error:
            if begun or response.failed is None:
                log.debug("response cut off: %s", error)
                raise ConnectionAbortedError(str(error)) from error
            self._send(response.failed(error), request, rest)
            return
        begin()
        self._write([self._http.send(h11.EndOfMessage())])
        rest.finish()

    def _head(self, response: Response, *, keep: bool, sized: bool = True) -> h11.Response:
        headers = self._headers(response)
        size = response.size if isinstance(response, FileResponse) else None
        if sized and size is None and isinstance(response.body, bytes):
            size = len(response.body)
        known = any(name.lower() == b"content-length" for name, _ in headers)
        if size is not None and not known and response.status not in _NO_BODY:
            headers.append((b"Content-Length", b"%d" % size))
        if not keep or self._server.stopping.is_set():
            headers.append((b"Connection", b"close"))
        reason = _reason(response.status)
        return h11.Response(status_code=response.status, headers=headers, reason=reason)

    def _send_pieces(self, pieces: Iterator[bytes], *, silent: bool) -> None:
        try:
            for piece in () if silent else pieces:
                if piece:
                    self._write(self._http.send_with_data_passthrough(h11.Data(data=piece)) or [])
        except ConnectionError:
            raise
        except Exception as error:
            # The status is sent: only a cut connection tells that the body is not whole.
            log.warning("response cut off: %s", error, exc_info=True)
            raise ConnectionAbortedError(str(error)) from error
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        self._write([self._http.send(h11.EndOfMessage())])

    def _send_file(self, response: FileResponse, head: bytes, *, silent: bool) -> None:
        assert response.file is not None
        with response.file as file:
            self._stream.sendall(head)
            if not silent:
                self._copy_file(file.fileno(), response.offset, response.size)
        # What went past h11 must be accounted for, or it calls the response too short.
        placeholder = _Counted(0 if silent else response.size)
        self._http.send_with_data_passthrough(h11.Data(data=placeholder))  # type: ignore[arg-type]
        self._http.send(h11.EndOfMessage())

    def _copy_file(self, file: int, offset: int, left: int) -> None:
        while left > 0:
            if self._stream.plain:
                sent = os.sendfile(self._stream.socket.fileno(), file, offset, left)
            else:
                data = os.pread(file, min(left, CHUNK), offset)
                self._stream.sendall(data)
                sent = len(data)
            if not sent:
                raise ConnectionAbortedError("the file became shorter while it was sent")
            offset, left = offset + sent, left - sent

    def _hijack(self, request: Request, response: Hijack, body: _Body) -> None:
        """Give the connection away; it is at its end for this exchange."""
        body.read()
        early, _ = self._http.trailing_data
        head = self._raw_head(request, response)
        assert response.prepare is not None
        try:
            if response.hand_over is not None and self._stream.plain and not early:
                response.hand_over(self._stream.socket.fileno(), head)
                return
            run = response.prepare()
        except Exception as error:
            if response.failed is None:
                raise
            self._send(response.failed(error), request, body)
            self._linger()
            return
        self._stream.sendall(head)
        run(Connection(self._stream, bytes(early), self._server.watch))

    def _raw_head(self, request: Request, response: Hijack) -> bytes:
        upgrade = request.wants_upgrade()
        status = response.status if response.status == 101 or not upgrade else 101
        headers = self._headers(response)
        if status == 101 and not any(name.lower() == b"upgrade" for name, _ in headers):
            protocol = request.headers.get("upgrade", "tcp")
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", protocol.encode("latin-1"))]
        lines = [b"HTTP/1.1 %d %b" % (status, b"UPGRADED" if status == 101 else b"OK")]
        lines += [name + b": " + value for name, value in headers]
        return b"\r\n".join([*lines, b"", b""])

    def _headers(self, response: Response) -> list[tuple[bytes, bytes]]:
        given = response.headers.items()
        return [*self._server.headers, *((n.encode("ascii"), _value(v)) for n, v in given)]

    def _write(self, parts: list[bytes | None] | list[bytes]) -> None:
        whole = [part for part in parts if part]
        if sum(map(len, whole)) <= JOIN_BYTES:
            whole = [b"".join(whole)]
        for part in whole:
            if part:
                self._stream.sendall(part)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what is not HTTP; the connection ends with it."""
        body = f"{reason}\n".encode()
        lines = [b"HTTP/1.1 %d %b" % (status, _reason(status))]
        lines += [name + b": " + value for name, value in self._server.headers]
        lines += [b"Content-Type: text/plain; charset=utf-8", b"Content-Length: %d" % len(body)]
        lines += [b"Connection: close", b"", body]
        self._stream.settimeout(LINGER_SECONDS)
        self._stream.sendall(b"\r\n".join(lines))
        self._linger()

    def _linger(self) -> None:
        """Let the client read the answer although it still sends: closing now would reset."""
        self._stream.shutdown_write()
        give_up = time.monotonic() + LINGER_SECONDS
        while (left := give_up - time.monotonic()) > 0:
            self._stream.settimeout(left)
            try:
                if not self._stream.recv(CHUNK):
                    return
            except OSError:
                return


class _Body:
    """The body of the request at hand."""

    def __init__(self, http: h11.Connection, stream: Stream) -> None:
        self._http = http
        self._stream = stream
        self._rest = memoryview(b"")
        self._done = False

    def read1(self, size: int = CHUNK) -> bytes:
        """Some bytes as soon as they are here; none at the end."""
        if not self._rest:
            self._rest = memoryview(self._next())
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end; all when negative."""
        parts, missing = [], size
        while missing:
            if not self._rest:
                self._rest = memoryview(self._next())
                if not self._rest:
                    break
            part = self._rest[:missing] if missing > 0 else self._rest
            self._rest = self._rest[len(part) :]
            parts.append(part)
            missing -= len(part) if missing > 0 else 0
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read1():
            yield data

    def _next(self) -> bytes | bytearray:
        while not self._done:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                self._stream.sendall(self._http.send(go_on) or b"")
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(self._stream.recv(CHUNK))
            except h11.RemoteProtocolError as error:
                self._done = True
                raise Invalid(f"request body: {error}") from error
            if isinstance(event, h11.Data):
                return event.data
            self._done = isinstance(event, h11.EndOfMessage | h11.ConnectionClosed)
        return b""

    def finish(self) -> bool:
        """Read what the handler left, if it is little; whether the connection can be kept."""
        if self._http.they_are_waiting_for_100_continue:
            return False
        left = DRAIN_BYTES
        try:
            while left > 0 and self._http.their_state is h11.SEND_BODY:
                left -= len(self._next())
        except Invalid:
            return False
        return self._http.their_state is h11.DONE


class _Counted:
    """Stands for that many bytes that are sent without h11."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"


def _value(text: str) -> bytes:
    return text.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace")
