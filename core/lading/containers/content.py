"""What is in a container's root: differences, export, copies in and out, commit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Protocol

import msgspec

from lading.archive import Bind, Change, PathStat, Root
from lading.containers import tell, volumes
from lading.containers.options import CommitOptions
from lading.containers.parts import Parts
from lading.containers.records import Container, Size, Status
from lading.containers.table import Live, Table
from lading.errors import Conflict, Denied
from lading.images import Image

CHUNK = 1 << 16


class Readable(Protocol):
    """A stream as the API has it."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class Content:
    """Reads and writes roots through tasks."""

    def __init__(self, parts: Parts, table: Table) -> None:
        self._parts = parts
        self._table = table

    def size(self, record: Container) -> Size:
        """Bytes of the container's own layer and of its whole root."""
        usage = self._parts.filesystems.get(record.filesystem).hook.usage(key=record.id)
        try:
            image = self._parts.images.get(record.image).size
        except NotFound:
            image = 0
        return Size(usage.size, usage.size + image)

    def stat(self, record: Container, path: str) -> PathStat:
        """Look at one path."""
        with self._root(record) as root:
            return self._parts.archives.stat(root, path)

    def get(self, record: Container, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """One path as a tar stream."""
        ...

    def export(self, record: Container) -> Iterator[bytes]:
        """The whole root as a tar stream."""
        chunks = self._stream(record, lambda root, out: self._parts.archives.export(root, out))
        tell.event(self._parts.events, record, "export")
        return chunks
