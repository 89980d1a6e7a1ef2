"""Reading a tar stream: one entry after the other, its data at most once, memory bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lading.archive import headers
from lading.archive.compression import CHUNK, Source
from lading.archive.headers import BLOCK, Entry
from lading.errors import Invalid

#: Pieces of data that a sparse file may have: the map is held in memory.
MOST_SEGMENTS = 1 << 20


class Digest(Protocol):
    """What hashlib's objects are."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more data."""
        ...


class Reader:
    """Iterate to get entries; ``data`` yields the content of the last one.

    Every byte of the stream, padding and trailer included, goes through ``digest``: so it is that
    of the whole archive once :meth:`drain` was called. A missing trailer and an empty stream are
    fine (Docker of 2014 wrote none); a stream that ends within an entry raises Invalid.
    """

    def __init__(self, source: Source, digest: Digest | None = None) -> None:
        self._source, self._digest = source, digest
        self._buffer = memoryview(b"")
        self._left = 0
        self._padding = 0
        self.total = 0

    def __iter__(self) -> Iterator[Entry]:
        global_records: dict[bytes, bytes] = {}
        records: dict[bytes, bytes] = {}
        long_name = long_link = b""
        held = 0
        while (block := self._header()) is not None:
            entry = headers.parse(block)
            if entry is None:
                return
            if entry.type in (b"x", b"g", b"L", b"K"):
                content = self._extension(entry)
                held += len(content)
                if held > headers.LARGEST_EXTENSION:
                    raise Invalid("tar header: extensions are too long")
                if entry.type == b"x":
                    records |= headers.parse_records(content)
                elif entry.type == b"g":
                    global_records |= headers.parse_records(content)
                elif entry.type == b"L":
                    long_name = content.partition(b"\0")[0]
                else:
                    long_link = content.partition(b"\0")[0]
                continue
            entry.name, entry.link = long_name or entry.name, long_link or entry.link
            if records or global_records:
                headers.extend(entry, {**global_records, **records})
            if entry.type == b"S":
                self._old_sparse(entry, block)
            self._begin(entry)
            yield entry
            self._skip()
            records, long_name, long_link = {}, b"", b""
            held = sum(map(len, global_records.values()))

    def data(self) -> Iterator[memoryview]:
        """The content of the present entry, in pieces; what is not taken is skipped later."""
        while self._left:
            piece = self._some(min(self._left, CHUNK))
            self._left -= len(piece)
            yield piece

    def read_all(self, limit: int) -> bytes:
        """The content of the present entry at once. Raises Invalid when it is larger."""
        if self._left > limit:
            raise Invalid(f"tar entry of {self._left} bytes where at most {limit} are expected")
        return b"".join(self.data())

    def drain(self) -> None:
        """Read the rest of the stream, which belongs to its digest."""
        self._skip()
        while self._some(CHUNK, end=True):
            pass

    def _begin(self, entry: Entry) -> None:
        # Only files have data; a size on a link or directory means nothing (POSIX).
        self._left = entry.size if entry.type in (headers.FILE, b"S") else 0
        self._padding = -self._left % BLOCK
        if entry.type not in (headers.FILE, b"S", b"1", b"2", b"3", b"4", b"5", b"6"):
            self._left, self._padding = entry.size, -entry.size % BLOCK
        if entry.sparse is not None and not entry.sparse and entry.type == headers.FILE:
            self._sparse_map(entry)

    def _sparse_map(self, entry: Entry) -> None:
        """GNU format 1.0: decimal lines in the first blocks of the data."""
        lines: list[int] = []
        text, wanted = b"", 1
        while len(lines) < wanted:
            text += self._exactly(BLOCK)
            self._left -= BLOCK
            *done, text = text.split(b"\n")
            lines += [int(line) for line in done if line.isdigit()]
            if lines:
                wanted = 1 + 2 * lines[0]
            if len(text) > headers.LARGEST_EXTENSION or wanted > 2 * MOST_SEGMENTS:
                raise Invalid("tar entry: the map of a sparse file is too long")
        entry.sparse = list(zip(lines[1:wanted:2], lines[2:wanted:2], strict=True))

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        segments, more, real = headers.old_gnu_sparse(block)
        while more:
            extra, more = headers.more_old_gnu_sparse(self._exactly(BLOCK))
            segments += extra
            if len(segments) > MOST_SEGMENTS:
                raise Invalid("tar entry: the map of a sparse file is too long")
        entry.sparse, entry.real_size = segments, real

    def _extension(self, entry: Entry) -> bytes:
        if entry.size > headers.LARGEST_EXTENSION:
            raise Invalid(f"tar header: an extension of {entry.size} bytes")
        content = self._exactly(entry.size)
        self._exactly(-entry.size % BLOCK)
        return content

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._some(min(self._left, CHUNK)))
        # Some writers, docker's build among them, end a stream without its last padding.
        while self._padding and (piece := self._some(self._padding, end=True)):
            self._padding -= len(piece)
        self._padding = 0

    def _header(self) -> bytes | None:
        first = bytes(self._some(BLOCK, end=True))
        if not first:
            return None
        return first + self._exactly(BLOCK - len(first)) if len(first) < BLOCK else first

    def _exactly(self, size: int) -> bytes:
        if size <= len(self._buffer):
            piece = bytes(self._buffer[:size])
            self._buffer = self._buffer[size:]
            return piece
        parts: list[memoryview] = []
        while size:
            parts.append(self._some(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _some(self, size: int, *, end: bool = False) -> memoryview:
        """Between 1 and ``size`` bytes; none at the end of the stream if that is allowed here."""
        if not self._buffer:
            data = self._source.read(CHUNK)
            if not data:
                if end:
                    return self._buffer
                raise Invalid("tar stream ends too early")
            if self._digest is not None:
                self._digest.update(data)
            self.total += len(data)
            self._buffer = memoryview(data)
        piece = self._buffer[:size]
        self._buffer = self._buffer[size:]
        return piece
