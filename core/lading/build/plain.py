"""Small contexts that are read in memory: a build that only asks the cache unpacks nothing.

Nothing here touches a file. What is to be copied is unpacked as any context is.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from lading.archive import compression, headers
from lading.archive.reader import Reader
from lading.build.sources import Digests, Entry, Sources
from lading.errors import Invalid

#: Bytes of an archive that is held in memory as long as its build runs.
LARGEST = 1 << 20
_LONGEST_NAME, _LONGEST_PATH = 255, 1024


class Special(Exception):
    """An archive has what only a filesystem can tell the meaning of, or is damaged."""


#: Directories above a file; each is a name of its own in memory.
_DEEPEST = 64


class Plain:
    """The files and directories of an archive that has nothing else, each of them once.

    Raises Special for any other.
    """

    def __init__(self, data: bytes) -> None:
        self.contents: dict[bytes, bytes] = {}
        self._modes: dict[bytes, int] = {}
        named: set[bytes] = set()
        try:
            source, compressed = compression.opened(io.BytesIO(data))
            if compressed:
                raise Special
            reader = Reader(source)
            for entry in reader:
                path = _path_of(entry)
                if path in named:
                    raise Special
                named.add(path)
                self._add(path, entry, b"".join(reader.data()))
        except Invalid as error:
            raise Special from error
        numbers = {path: number for number, path in enumerate(self._modes)}
        self._numbers = numbers
        self.digests = Digests(
            {numbers[path]: hashlib.sha256(data).digest() for path, data in self.contents.items()}
        )

    def _add(self, path: bytes, entry: headers.Entry, content: bytes) -> None:
        if not path:
            return
        if path.count(b"/") > _DEEPEST:
            raise Special
        above = posixpath.dirname(path)
        while above:
            if not stat.S_ISDIR(self._modes.setdefault(above, stat.S_IFDIR | 0o755)):
                raise Special
            above = posixpath.dirname(above)
        mode = entry.mode & 0o7777
        if entry.type == headers.DIRECTORY:
            self._modes[path] = stat.S_IFDIR | mode
        elif path in self._modes:
            # It was a directory so far.
            raise Special
        else:
            self._modes[path] = stat.S_IFREG | mode
            self.contents[path] = content

    def has(self, path: bytes) -> bool:
        """Whether there is such a file or directory; "" is the whole."""
        return not path or path in self._modes

    def below(self, path: bytes) -> list[bytes]:
        """All that a directory holds, parents first, in the order of a walk."""
        start = path + b"/" if path else b""
        return sorted((p for p in self._modes if p.startswith(start)), key=_parts)

    def is_directory(self, path: bytes) -> bool:
        """Whether there is such a directory."""
        return not path or stat.S_ISDIR(self._modes.get(path, 0))

    def entry(self, path: bytes, relative: bytes) -> Entry:
        """What is at a path, as to be copied."""
        mode, number = self._modes.get(path, stat.S_IFDIR | 0o755), self._numbers.get(path, -1)
        size = len(self.contents.get(path, b""))
        return Entry(relative, b"", os.stat_result((mode, number, 0, 1, 0, 0, size, 0, 0, 0)))


class PlainSources(Sources):
    """Selects in a context that is in memory."""

    def __init__(self, plain: Plain, exclude: Sequence[str]) -> None:
        super().__init__(b"", -1, exclude)
        self._plain = plain

    def entries(self, path: bytes) -> Iterator[Entry]:
        """A file by its name, or a directory and what is in it, parents first."""
        if not self._plain.is_directory(path):
            name = posixpath.basename(path)
            if not self._skipped(name):
                yield self._plain.entry(path, name)
            return
        yield self._plain.entry(path, b"")
        start = len(path) + 1 if path else 0
        for inner in self._plain.below(path):
            if not self._skipped(inner[start:]):
                yield self._plain.entry(inner, inner[start:])

    def _exists(self, path: bytes) -> bool:
        return self._plain.has(path)

    def _names(self, above: bytes) -> list[bytes]:
        start = len(above) + 1 if above else 0
        return [p[start:] for p in self._plain.below(above) if b"/" not in p[start:]]

    def _directories(self, above: bytes) -> list[bytes]:
        if not self._plain.is_directory(above):
            return []
        return [above, *filter(self._plain.is_directory, self._plain.below(above))]


def _path_of(entry: headers.Entry) -> bytes:
    """A name that unpacking would make as it stands. Raises Special, Invalid."""
    path = headers.clean(entry.name)
    if entry.type not in (headers.FILE, headers.DIRECTORY) or entry.xattrs or entry.sparse:
        raise Special
    if entry.type == headers.FILE and not path:
        raise Special
    if b"\0" in path or len(path) > _LONGEST_PATH:
        raise Special
    if any(len(part) > _LONGEST_NAME for part in path.split(b"/")):
        raise Special
    return path


def _parts(path: bytes) -> list[bytes]:
    return path.split(b"/")
