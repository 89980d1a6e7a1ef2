"""Streams of layers: one that is verified while it is read, one that is summed while it is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import urllib3
from urllib3.response import BaseHTTPResponse

from lading.archive.compression import CHUNK, Source, opened
from lading.errors import Invalid
from lading.hooks.registry import Stream
from lading.model import oci

_LEVEL = 1
_READABLE = (oci.LAYER, oci.LAYER_GZIP, oci.DOCKER_LAYER, oci.DOCKER_LAYER_GZIP)


class Payload:
    """The checksum of one layer as far as it was read; survives a break of the connection."""

    def __init__(self, layer_id: str, document: bytes, expected: str, size: int) -> None:
        self.layer_id, self.expected, self.size = layer_id, expected, size
        self._document = document
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self.offset = 0
        self._hash = hashlib.sha256(self._document + b"\n")

    def take(self, piece: bytes) -> None:
        """Account for some content."""
        self._hash.update(piece)
        self.offset += len(piece)

    def finish(self) -> None:
        """Compare, when all is there. Raises Invalid."""
        if not self.expected or (self.size >= 0 and self.offset != self.size):
            return
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self.expected:
            raise Invalid(
                f"layer {self.layer_id[:12]} has the checksum {found}, "
                f"the registry says {self.expected}"
            )


class IncomingLayer:
    """A layer's content from the registry."""

    def __init__(self, answer: BaseHTTPResponse, payload: Payload, left: int) -> None:
        """``left``: bytes that are still to come, -1 for all."""
        self._answer, self._payload, self._left = answer, payload, left

    def read(self, size: int, /) -> bytes:
        """Some bytes. Registries of the time announce one too many for a range: it is not waited
        for."""
        if self._left == 0:
            self._payload.finish()
            return b""
        wanted = size if self._left < 0 else min(size, self._left)
        try:
            # Not ``read``, which waits for all of it and forgets what came before a break.
            piece = self._answer.read1(wanted, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(f"the connection broke: {error}") from error
        if not piece:
            self._payload.finish()
            return b""
        self._payload.take(piece)
        if self._left > 0:
            self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Give the connection up."""
        with suppress(ValueError, RuntimeError, OSError):
            # Another thread may be waiting in ``read``: closing alone would not wake it.
            self._answer.shutdown()
        self._answer.close()


class OutgoingPayload:
    """A layer being sent, with the checksum over it and its document."""

    def __init__(self, document: bytes, stream: Stream, media_type: str) -> None:
        self._hash = hashlib.sha256(document + b"\n")
        self._stream = stream
        self._source: Source = stream if media_type in _READABLE else _Recompressed(stream)

    def pieces(self, tell: Callable[[int], None]) -> Iterator[bytes]:
        """The content, once; ``tell`` gets the bytes sent so far."""
        sent = 0
        while piece := self._source.read(CHUNK):
            self._hash.update(piece)
            yield piece
            sent += len(piece)
            tell(sent)

    @property
    def checksum(self) -> str:
        """Once it was sent."""
        return f"sha256:{self._hash.hexdigest()}"

    def close(self) -> None:
        """Close the layer."""
        self._stream.close()


class _Recompressed:
    """A layer as gzip, for those who know nothing else."""

    def __init__(self, source: Source) -> None:
        from isal import isal_zlib  # layers in another compression are rare

        self._plain, _ = opened(source)
        self._compressor: Any = isal_zlib.compressobj(_LEVEL, wbits=31)
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Some compressed bytes."""
        while not self._ended:
            piece = self._plain.read(size)
            self._ended = not piece
            out: bytes = self._compressor.compress(piece) if piece else self._compressor.flush()
            if out:
                return out
        return b""


class Bytes:
    """Some bytes as a :class:`Stream`."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, /) -> bytes:
        """The next of them."""
        piece, self._content = self._content[:size], self._content[size:]
        return piece

    def close(self) -> None:
        """Nothing to close."""
