"""Reading a container's log, rotated files included, and following it.

The writer appends whole records and never changes one. When it rotates, a file keeps its inode and
gets another name (or none, when only one file is kept): a follower reads the inode that it has open
to its end, then goes on with the next newer file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
import time
from calendar import timegm
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from lading.monitor.inotify import Watch

_BLOCK = 1 << 17


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as it was logged: ``data`` with its newline, or without when it was cut.

    ``time`` is in nanoseconds since 1970, ``stream`` is ``stdout`` or ``stderr``.
    """

    time: int
    stream: str
    data: bytes
    attributes: dict[str, str] = field(default_factory=dict)


class Follower:
    """Ends a following reader, from any thread. To be closed by whoever made it."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A late call must not write to whatever has the descriptor's number by then.
        self._lock = threading.Lock()
        self.finished = False
        self.cancelled = False

    def finish(self) -> None:
        """Tell that the container has ended: the reader ends when it has read everything."""
        self.finished = True
        self._wake()

    def cancel(self) -> None:
        """Let the reader end at once."""
        self.cancelled = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._event >= 0:
                os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """A descriptor that is readable once one of both was called."""
        return self._event

    def close(self) -> None:
        """Release the descriptor, after the reader has ended. A second call does nothing."""
        with self._lock:
            if self._event >= 0:
                os.close(self._event)
                self._event = -1


def read_logs(
    path: Path,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int = 0,
    until: int = 0,
    tail: int = -1,
    follow: Follower | None = None,
) -> Iterator[LogLine]:
    """Yield the lines of a log, oldest first, from its rotated files and then the present one.

    ``since`` and ``until`` are nanoseconds since 1970 (0 = no bound); ``tail`` is the number of
    last lines to begin with (< 0 = all), counted before the streams are chosen, as Docker does.
    With ``follow`` it goes on with what is being written, until that is finished or cancelled.
    A log that does not exist is empty. Closing the generator ends it like any other.
    """
    streams = {name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted}
    reader = _Reader(path, follow)
    try:
        for line in reader.lines(tail):
            if until and line.time > until:
                return
            if line.stream in streams and line.time >= since:
                yield line
    finally:
        reader.close()


class _Reader:
    def __init__(self, path: Path, follow: Follower | None) -> None:
        self._path = path
        self._follow = follow
        # Watched before anything is read: what is written meanwhile is not slept through.
        self._watch = Watch(path.parent) if follow is not None else None
        self._file: BinaryIO | None = None
        self._rest = b""
        self._last = 0

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._file is not None:
            self._file.close()

    def lines(self, tail: int) -> Iterator[LogLine]:
        files = self._files()
        older, self._file = files[:-1], (files[-1] if files else None)
        if tail >= 0:
            older = _start_at_tail(older, self._file, tail)
        for file in older:
            with file:
                yield from self._parsed(file)
        if self._file is not None and self._follow is None:
            # Only what is there now: a container may write faster than a client reads.
            yield from self._parsed(self._file, os.fstat(self._file.fileno()).st_size)
        if self._follow is not None:
            yield from self._following(self._follow)

    def _files(self) -> list[BinaryIO]:
        """Open all files of the log, oldest first.

        The newest comes first, so that a rotation in between shows a file twice, not never.
        """
        files: list[BinaryIO] = []
        seen: set[tuple[int, int]] = set()
        number = 0
        while (file := _open(self._path, number)) is not None or number == 0:
            number += 1
            if file is None:
                continue
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) in seen:
                file.close()
                continue
            seen.add((status.st_dev, status.st_ino))
            files.insert(0, file)
        return files

    def _following(self, follow: Follower) -> Iterator[LogLine]:
        while not self._cancelled():
            # Asked first: what was written before the end is then still read.
            finished = follow.finished
            progressed = False
            while not self._cancelled() and (file := self._advance()) is not None:
                for line in self._parsed(file):
                    progressed = True
                    yield line
            if finished and not progressed:
                return
            if not progressed and self._watch is not None:
                self._watch.wait(follow.fileno())

    def _cancelled(self) -> bool:
        return self._follow is not None and self._follow.cancelled

    def _advance(self) -> BinaryIO | None:
        """The file that has something new to read, None when there is nothing."""
        if self._file is not None and _left(self._file):
            return self._file
        newest = _open(self._path, 0)
        if newest is None:
            return None
        with newest:
            if self._file is not None and _same(self._file, newest):
                return None
        if self._file is not None and _left(self._file):
            return self._file  # it was written to after we looked, and rotated then
        successor = self._successor()
        if successor is not None:
            self._replace(successor)
        return successor

    def _successor(self) -> BinaryIO | None:
        """The file after the one that was read."""
        files = self._files()
        chosen = len(files) - 1
        for number, file in enumerate(files[:-1]):
            if self._file is not None and _same(self._file, file):
                chosen = number + 1
                break
        else:
            # It is gone or packed by now: the oldest that has anything newer.
            for number, file in enumerate(files[:-1]):
                if _last_time(file) > self._last:
                    chosen = number
                    break
        for number, file in enumerate(files):
            if number != chosen:
                file.close()
        return files[chosen] if files else None

    def _replace(self, file: BinaryIO) -> None:
        if self._file is not None:
            self._file.close()
        self._file = file
        self._rest = b""

    def _parsed(self, file: BinaryIO, end: int = sys.maxsize) -> Iterator[LogLine]:
        """The records from where the file stands to its end; half a record is kept for later."""
        while not self._cancelled() and (block := file.read(min(_BLOCK, end - file.tell()))):
            records, newline, rest = (self._rest + block).rpartition(b"\n")
            self._rest = rest
            if newline:
                for line in _decode(records):
                    self._last = line.time
                    yield line


def _open(path: Path, number: int) -> BinaryIO | None:
    """Open the file with that number, packed or not."""
    name = f"{path}.{number}" if number else str(path)
    try:
        return open(name, "rb", buffering=0)
    except FileNotFoundError:
        pass
    try:
        return _Unpacked(cast(Any, gzip.GzipFile(f"{name}.gz")))
    except FileNotFoundError:
        return None


class _Unpacked(io.BufferedReader):
    """A packed file, read as what it holds; its descriptor is the packed file's."""


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    a, b = os.fstat(one.fileno()), os.fstat(other.fileno())
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _left(file: BinaryIO) -> bool:
    """Whether there is anything beyond where the file stands."""
    if isinstance(file, _Unpacked):
        return bool(file.peek(1))
    return os.fstat(file.fileno()).st_size > file.tell()


def _last_time(file: BinaryIO) -> int:
    """The time of a file's last record, 0 without one; the file stands where it stood."""
    position = file.tell()
    if isinstance(file, _Unpacked):
        last = deque(file, 1)
        records = b"".join(last)
    else:
        size = os.fstat(file.fileno()).st_size
        # A record holds at most 16 KiB, each byte of which may take six.
        file.seek(max(0, size - (1 << 17)))
        records = b"".join(file.read(1 << 17).splitlines(keepends=True)[-1:])
    file.seek(position)
    lines = list(_decode(records.rstrip(b"\n")))
    return lines[-1].time if lines else 0


def _start_at_tail(older: list[BinaryIO], newest: BinaryIO | None, count: int) -> list[BinaryIO]:
    """Set the files to their last ``count`` records; returns the older ones that hold any."""
    files = [*older] if newest is None else [*older, newest]
    kept: list[BinaryIO] = []
    for file in reversed(files):
        if count > 0:
            count -= _seek_back(file, count)
            kept.insert(0, file)
        elif file is newest:
            file.seek(0, os.SEEK_END)
        else:
            file.close()
    return [f for f in kept if f is not newest]


def _seek_back(file: BinaryIO, count: int) -> int:
    """Set a file to its last ``count`` records; returns how many there are."""
    if isinstance(file, _Unpacked):
        offsets: deque[int] = deque(maxlen=count)
        offset = 0
        for record in file:
            offsets.append(offset)
            offset += len(record)
        file.seek(offsets[0] if offsets else 0)
        return len(offsets)
    needed = count + 1  # newlines: the last one closes the last record
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        block = file.read(end - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            needed -= 1
            if needed == 0:
                file.seek(start + at + 1)
                return count
        end = start
    file.seek(0)
    return count + 1 - needed


def _decode(records: bytes) -> Iterable[LogLine]:
    """Parse records that newlines separate, all at once if they are sound."""
    try:
        parsed = json.loads(b"[" + records.replace(b"}\n{", b"},{") + b"]")
    except ValueError:
        parsed = list(_sound(records))
    for record in parsed:
        yield LogLine(
            _nanoseconds(record["time"]),
            record["stream"],
            record["log"].encode("utf-8", "surrogatepass"),
            record.get("attrs") or {},
        )


def _sound(records: bytes) -> Iterator[dict[str, Any]]:
    for record in records.split(b"\n"):
        try:
            parsed = json.loads(record)
        except ValueError:
            continue  # torn by a crash of the host
        if isinstance(parsed, dict) and {"time", "stream", "log"} <= parsed.keys():
            yield parsed


def _nanoseconds(text: str) -> int:
    """The time of a record, RFC 3339 in UTC with any number of digits, since 1970."""
    second, _, fraction = text.rstrip("Z").partition(".")
    return _second(second) * 1_000_000_000 + int(fraction.ljust(9, "0"))


@lru_cache(64)
def _second(text: str) -> int:
    """Seconds since 1970; neighbours in a log share it."""
    return timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
