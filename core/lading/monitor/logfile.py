"""Writing a container's log: one JSON object a line, as Docker's json-file driver does.

::

    <id>-json.log      {"log":"a line\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}
    <id>-json.log.1    the one before it, when max-size is set; .2 is older (.2.gz with compress)

A line is logged when its newline has come, or in parts of 16 KiB, all but the last without a
newline; what remains without a newline at the end is logged so.

Output is encoded in blocks, not line by line. It rests on one property of JSON strings: after
escaping there is no raw control character in them, so that NUL can stand for an escaped backslash
while escaped newlines are turned into borders between records.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Final, Protocol

from lading.errors import Invalid
from lading.monitor.launch import LogConfig, rfc3339

#: The longest piece of a line that one record holds.
PIECE: Final = 16 * 1024

_STREAMS: Final = {1: "stdout", 2: "stderr"}
_UNITS: Final = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_DEFAULTS: Final[Mapping[str, Mapping[str, str]]] = {
    "json-file": {},
    "local": {"max-size": "20m", "max-file": "5", "compress": "true"},
    "none": {},
}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a log is rotated: ``size`` in bytes (0 = never), ``files`` including the present one."""

    size: int = 0
    files: int = 1
    compress: bool = False


#: A log's path, its limits, and the attributes as they stand in each record.
Plan = tuple[str, int, int, bool, str]


class Log(Protocol):
    """Where output is kept."""

    def write(self, stream: int, data: bytes) -> None:
        """Take output of descriptor 1 or 2."""
        ...

    def close(self) -> None:
        """Log what is left and close the file."""
        ...


class NoLog:
    """The driver ``none``."""

    def write(self, stream: int, data: bytes) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Nothing to close."""


def limits(driver: str, options: Mapping[str, str]) -> Limits:
    """The limits that a driver's options ask for. Raises Invalid, naming the option."""
    if driver not in _DEFAULTS:
        raise Invalid(f'unknown log driver "{driver}"', hint="known: " + ", ".join(_DEFAULTS))
    asked = {**_DEFAULTS[driver], **options}
    size = _size(asked["max-size"]) if asked.get("max-size", "-1") != "-1" else 0
    count = asked.get("max-file", "1")
    if not count.isdecimal() or int(count) < 1:
        raise Invalid(f'log option max-file "{count}" must be a number of at least 1')
    compress = asked.get("compress", "false")
    if compress not in ("true", "false"):
        raise Invalid(f'log option compress "{compress}" must be "true" or "false"')
    if options.get("compress") == "true" and (size == 0 or int(count) < 2):
        raise Invalid("log option compress needs max-size, and max-file of at least 2")
    return Limits(size, int(count), compress == "true")


def open_log(config: LogConfig) -> Log:
    """Open the log that a container's configuration asks for."""
    fd, plan = prepare_log(config)
    return NoLog() if fd < 0 else JsonFile(fd, *plan)


def prepare_log(config: LogConfig) -> tuple[int, Plan]:
    """Check the options and open the file: what :class:`JsonFile` needs; -1 when nothing is kept.

    Apart from it because the one who opens is not the one who writes. Raises Invalid, OSError.
    """
    bounds = limits(config.driver, config.options)
    if config.driver == "none" or config.path is None:
        return -1, ("", 0, 1, False, "")
    attributes = f'"attrs":{json.dumps(dict(config.attributes))},' if config.attributes else ""
    path = str(config.path)
    return _open(path), (path, bounds.size, bounds.files, bounds.compress, attributes)


class JsonFile:
    """A log file with its rotation."""

    def __init__(
        self, fd: int, path: str, size: int, files: int, compress: bool, attributes: str
    ) -> None:
        self._fd = fd
        self._path = path
        self._bound = size
        self._files = files
        self._compress = compress
        self._attributes = attributes
        self._rest = {1: b"", 2: b""}
        self._compressing = -1
        self._size = os.fstat(fd).st_size

    def write(self, stream: int, data: bytes) -> None:
        """Log the lines that are complete now. A full disk loses lines, it stops nothing."""
        rest = self._rest[stream]
        end = data.rfind(b"\n") + 1
        if end:
            self._lines(stream, rest + data[:end] if rest else data[:end])
            rest = data[end:]
        else:
            rest += data
        while len(rest) > PIECE:
            cut = _cut(rest)
            self._emit(self._record(stream, rest[:cut]))
            rest = rest[cut:]
        self._rest[stream] = rest

    def close(self) -> None:
        """Log lines that have no newline and close the file."""
        for stream, rest in self._rest.items():
            if rest:
                self._emit(self._record(stream, rest))
        self._rest = {1: b"", 2: b""}
        os.close(self._fd)
        self._await_compression()

    def _lines(self, stream: int, block: bytes) -> None:
        if len(block) <= PIECE or max(map(len, block.split(b"\n"))) < PIECE:
            self._emit(self._records(stream, block))
            return
        for line in _split(block):
            self._emit(self._record(stream, line))

    def _tail(self, stream: int) -> str:
        now = rfc3339(time.time_ns())
        return f'","stream":"{_STREAMS[stream]}",{self._attributes}"time":"{now}"}}\n'

    def _records(self, stream: int, block: bytes) -> bytes:
        """Encode whole lines, each with its newline."""
        text = encode_basestring(block.decode("utf-8", "replace"))[1:-1]
        border = "\\n" + self._tail(stream) + '{"log":"'
        if block.find(b"\\") < 0:
            text = text.replace("\\n", border)
        else:
            text = text.replace("\\\\", "\0").replace("\\n", border).replace("\0", "\\\\")
        return ('{"log":"' + text[: -len('{"log":"')]).encode()

    def _record(self, stream: int, piece: bytes) -> bytes:
        text = encode_basestring(piece.decode("utf-8", "replace"))[1:-1]
        return ('{"log":"' + text + self._tail(stream)).encode()

    def _emit(self, records: bytes) -> None:
        bound = self._bound
        if not bound or self._size + len(records) <= bound:
            self._append(records)
            return
        for record in records.splitlines(keepends=True):
            if self._size >= bound:
                self._rotate()
            self._append(record)

    def _append(self, records: bytes) -> None:
        try:
            written = os.write(self._fd, records)
            if written < len(records):
                # The disk is full: a torn record would spoil the next one.
                os.ftruncate(self._fd, self._size)
                return
        except OSError:
            return
        self._size += written

    def _rotate(self) -> None:
        """Move the files on by one; a follower keeps the inode that it reads."""
        self._await_compression()
        path, suffix = self._path, ".gz" if self._compress else ""
        os.close(self._fd)
        oldest = self._files - 1
        if oldest == 0:
            os.unlink(path)
        for number in range(oldest - 1, 0, -1):
            _move(f"{path}.{number}{suffix}", f"{path}.{number + 1}{suffix}")
        if oldest > 0:
            _move(path, f"{path}.1")
        self._fd, self._size = _open(path), 0
        if suffix and oldest > 0:
            self._compressing = _compress(f"{path}.1")

    def _await_compression(self) -> None:
        # Only waited for, not reaped: that is done where all children are.
        if self._compressing >= 0:
            poll = select.poll()
            poll.register(self._compressing, select.POLLIN)
            poll.poll()
            os.close(self._compressing)
            self._compressing = -1


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _size(text: str) -> int:
    number, unit = text.rstrip("bBkKmMgGtT"), text[len(text.rstrip("bBkKmMgGtT")) :].lower()
    factor = _UNITS.get(unit[:1] if unit[1:] in ("", "b") else "?")
    try:
        size = int(float(number) * (factor or 0))
    except ValueError:
        size = 0
    if size <= 0:
        raise Invalid(f'log option max-size "{text}" is no size such as "10m" or "1g"')
    return size


def _split(block: bytes) -> Iterator[bytes]:
    """Lines with their newlines, long ones in pieces."""
    for line in block.split(b"\n")[:-1]:
        line += b"\n"
        while len(line) > PIECE:
            cut = _cut(line)
            yield line[:cut]
            line = line[cut:]
        yield line


def _cut(line: bytes) -> int:
    """Where to cut a piece off: not inside a character of UTF-8."""
    for cut in range(PIECE, PIECE - 4, -1):
        if line[cut] & 0xC0 != 0x80:
            return cut
    return PIECE


def _move(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        pass


def _compress(path: str) -> int:
    """Replace a file by its gzip in a child process, whose pidfd is returned."""
    pid = os.fork()
    if pid:
        return os.pidfd_open(pid)
    try:
        # The streams of the container must see their end without this process.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        # Imported here: no monitor should carry it that does not compress.
        import gzip
        import shutil

        os.nice(10)
        with open(path, "rb") as source, gzip.open(f"{path}.gz.new", "wb", 6) as target:
            shutil.copyfileobj(source, target, 1 << 18)
        os.rename(f"{path}.gz.new", f"{path}.gz")
        os.unlink(path)
    finally:
        os._exit(0)
