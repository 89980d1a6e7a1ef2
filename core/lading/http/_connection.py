"""The client's side of one connection: heads and chunks in, uploads out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from lading.http.stream import CHUNK, Stream

LINE_LIMIT = 64 * 1024


class Readable(Protocol):
    """A file that is sent as a body."""

    def read(self, size: int, /) -> bytes:
        """Some bytes; none at the end."""
        ...


class Connection:
    """A stream with a buffer for what was read beyond the line or chunk at hand."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.buffer = b""

    def read1(self, size: int) -> bytes:
        if not self.buffer:
            return self.stream.recv(size)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            if len(self.buffer) > LINE_LIMIT:
                raise ConnectionError("a header line is too long")
            data = self.stream.recv(CHUNK)
            if not data:
                raise ConnectionResetError("the connection ended too early")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def read_head(self) -> tuple[tuple[int, str], dict[str, str]]:
        """Status and headers, after any interim response but 101."""
        while True:
            parts = self.line().decode("latin-1").split(" ", 2)
            if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
                raise ConnectionError("the answer is not HTTP/1.1")
            headers = self.read_headers()
            status = int(parts[1])
            if status == 101 or status >= 200:
                return (status, parts[2] if len(parts) > 2 else ""), headers

    def read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            name = name.strip().lower()
            headers[name] = (
                f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
            )
        return headers

    def chunk_size(self) -> int:
        try:
            return int(self.line().partition(b";")[0], 16)
        except ValueError as error:
            raise ConnectionError("a chunk has no length") from error

    def expect_line_end(self) -> None:
        if self.line():
            raise ConnectionError("a chunk is longer than it says")


class Upload:
    """Sends a body in a thread of its own: the server may answer at length before it is over."""

    def __init__(self, stream: Stream, head: bytes, body: Readable | Iterable[bytes]) -> None:
        import threading  # late: most requests have no body to stream

        self.complete = False
        self._error: BaseException | None = None
        self._stream = stream
        stream.sendall(head)
        threading.Thread(target=self._run, args=(body,), daemon=True).start()

    def check(self) -> None:
        """Raise what stopped the caller's body, if something did."""
        if self._error is not None:
            raise self._error

    def _run(self, body: Readable | Iterable[bytes]) -> None:
        try:
            for piece in _pieces(body):
                if piece:
                    self._stream.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self._stream.sendall(b"0\r\n\r\n")
            self.complete = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has had enough; its answer says why
        except BaseException as error:
            self._error = error
            self._stream.shutdown()


def _pieces(body: Readable | Iterable[bytes]) -> Iterator[bytes]:
    read = getattr(body, "read", None)
    return iter(lambda: read(CHUNK), b"") if read else iter(body)  # type: ignore[arg-type]
