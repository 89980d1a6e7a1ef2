"""The list of files in a layer, as the registry of 2014 gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from lading.archive import headers
from lading.archive.compression import Source, opened
from lading.archive.reader import Reader

_TYPES = {
    headers.FILE: "f",
    headers.LINK: "l",
    headers.SYMLINK: "s",
    headers.CHARACTER: "c",
    headers.BLOCK_DEVICE: "b",
    headers.DIRECTORY: "d",
    headers.FIFO: "i",
}
_WHITEOUT = ".wh."
#: AUFS's own files, which no image shows.
_METADATA = ".wh..wh."


def listing(layer: BinaryIO) -> Iterator[bytes]:
    """The list as JSON, row by row, since a layer may have millions; closes the layer.

    Raises Invalid.
    """
    with layer:
        before = b"["
        for row in files(layer):
            yield before + json.dumps(row).encode()
            before = b", "
        yield b"[]" if before == b"[" else b"]"


def files(layer: Source) -> Iterator[list[Any]]:
    """``[path, type, deleted, size, mtime, mode, uid, gid]`` of each entry. Raises Invalid."""
    source, _ = opened(layer)
    for entry in Reader(source):
        path = "/" + entry.name.decode("utf-8", "replace").removeprefix("./").strip("/")
        folder, _, name = path.rpartition("/")
        if name.startswith(_METADATA):
            continue
        deleted = name.startswith(_WHITEOUT)
        if deleted:
            path = f"{folder}/{name.removeprefix(_WHITEOUT)}"
        kind = _TYPES.get(entry.type, "u")
        seconds = entry.mtime // headers.SECOND
        yield [path, kind, deleted, entry.size, seconds, entry.mode, entry.uid, entry.gid]
