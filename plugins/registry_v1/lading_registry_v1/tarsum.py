"""The checksum of a layer's files that registries before 0.9 compared (utils/tarsum.go, version 0).

``tarsum+sha256:`` and the SHA-256 over the image's document and the sorted sums of all entries. The
sum of an entry covers its header's fields, as names and decimal numbers, and its content.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from typing import IO, cast

from lading.archive.compression import CHUNK, Pushback, Source, opened


def tarsum(document: bytes, layer: Source) -> str:
    """The checksum of a layer, compressed or not; "" for what cannot be read as tar."""
    source, _ = opened(layer)
    sums: dict[str, str] = {}
    first = source.read(CHUNK)
    if not first:
        # Docker of 2014 wrote no trailer, so a layer without entries has no content at all.
        return _whole(document, sums)
    source = Pushback(first, source)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|", bufsize=CHUNK) as tar:
            for entry in tar:
                sums[entry.name] = _entry(tar, entry)
    except (tarfile.TarError, UnicodeError):
        return ""
    return _whole(document, sums)


def _whole(document: bytes, sums: Mapping[str, str]) -> str:
    whole = hashlib.sha256(document)
    for line in sorted(sums.values()):
        whole.update(line.encode())
    return f"tarsum+sha256:{whole.hexdigest()}"


def _entry(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    name = entry.name + "/" if entry.isdir() else entry.name
    fields: list[tuple[str, object]] = [
        ("name", name),
        ("mode", entry.mode),
        ("uid", entry.uid),
        ("gid", entry.gid),
        ("size", entry.size),
        ("mtime", int(entry.mtime)),
        ("typeflag", entry.type.decode("latin-1")),
        ("linkname", entry.linkname),
        ("uname", entry.uname),
        ("gname", entry.gname),
        ("devmajor", entry.devmajor),
        ("devminor", entry.devminor),
    ]
    found = hashlib.sha256()
    for label, value in fields:
        found.update(f"{label}{value}".encode("utf-8", "surrogateescape"))
    content = tar.extractfile(entry) if entry.isreg() else None
    if content is not None:
        while piece := content.read(CHUNK):
            found.update(piece)
    return found.hexdigest()
