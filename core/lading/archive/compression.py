"""Compressed streams told by their first bytes, and read with bounded memory.

gzip (RFC 1952, by ISA-L), zstd (RFC 8878), bzip2, xz, or none. A stream of several members reads as
one, as gunzip has it.
"""

from __future__ import annotations

import bz2
import lzma
import os
from collections.abc import Callable
from typing import Any, Protocol, cast

from lading.errors import Invalid

CHUNK = 1 << 20

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
#: How much of a stream :func:`sniff` wants to see: a tar's first header.
SNIFF = 512


class Source(Protocol):
    """Where bytes come from: at most ``size`` at a time, none at the end."""

    def read(self, size: int, /) -> bytes:
        """Read some bytes; b"" only at the end."""
        ...


class Descriptor:
    """A :class:`Source` over a file descriptor, which it does not own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        """One read(2)."""
        return os.read(self._descriptor, size)


class Pushback:
    """A :class:`Source` with some bytes put back in front."""

    def __init__(self, first: bytes, rest: Source) -> None:
        self._first, self._rest = first, rest

    def read(self, size: int) -> bytes:
        """The bytes put back, then the rest."""
        if self._first:
            part, self._first = self._first[:size], self._first[size:]
            return part
        return self._rest.read(size)


def sniff(first: bytes) -> str:
    """The compression that a stream starting with these bytes has; "" for none.

    A tar is none, even when its first name is like a magic number.
    """
    if first[257:262] == b"ustar":
        return ""
    for magic, name in _MAGIC:
        if first.startswith(magic):
            return name
    return ""


def opened(source: Source) -> tuple[Source, str]:
    """The uncompressed stream, and what it was compressed with."""
    first = b""
    while len(first) < SNIFF and (part := source.read(SNIFF - len(first))):
        first += part
    name = sniff(first)
    whole = Pushback(first, source)
    return (_READERS[name](whole) if name else whole), name


class _Members:
    """Decompressor objects of zlib's kind, one after the other, over a source."""

    def __init__(
        self, source: Source, make: Callable[[], Any], errors: tuple[type[Exception], ...]
    ) -> None:
        self._source, self._make, self._errors = source, make, errors
        self._object = make()
        self._pending: bytes | memoryview = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """At most ``size`` uncompressed bytes."""
        try:
            while not self._ended:
                part = self._step(size)
                if part:
                    return part
        except self._errors as error:
            raise Invalid(f"damaged compressed stream: {error}") from error
        return b""

    def _step(self, size: int) -> bytes:
        if self._object.eof:
            return self._next_member()
        if not self._pending and getattr(self._object, "needs_input", True):
            self._pending = self._source.read(CHUNK)
            if not self._pending:
                raise Invalid("compressed stream ends too early")
        out: bytes = self._object.decompress(self._pending, size)
        # zlib gives back what it did not take; bz2 and lzma keep it.
        self._pending = getattr(self._object, "unconsumed_tail", b"")
        return out

    def _next_member(self) -> bytes:
        rest = self._object.unused_data or self._source.read(CHUNK)
        rest = rest.lstrip(b"\0") if rest else rest
        if not rest or not sniff(rest):
            # Padding, or something that is no further member: gunzip ignores it as well.
            self._ended = True
            return b""
        self._object, self._pending = self._make(), rest
        return b""


def _gzip(source: Source) -> Source:
    from isal import isal_zlib  # with the first gzip stream only: most tasks see none

    # Its stubs call the class an instance.
    failure = cast(type[Exception], isal_zlib.error)
    return _Members(source, lambda: isal_zlib.decompressobj(wbits=31), (failure, ValueError))


class _ZstdFrame:
    """One frame, as an object of zlib's kind.

    zstandard's own reader takes a stream that is cut off for one that ends; its objects tell, but
    put out whatever one input expands to: so they get little at a time.
    """

    #: Bytes of input; each four can become 128 KiB (RFC 8878, RLE blocks).
    STEP = 2048

    def __init__(self) -> None:
        import zstandard

        self._object = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._out = b""
        self.unconsumed_tail = memoryview(b"")

    def decompress(self, data: bytes | memoryview, size: int) -> bytes:
        """At most ``size`` bytes of output; what was not taken is ``unconsumed_tail``."""
        rest = memoryview(data)
        if not self._out:
            self._out, rest = self._object.decompress(rest[: self.STEP]), rest[self.STEP :]
        self.unconsumed_tail = rest
        part, self._out = self._out[:size], self._out[size:]
        return part

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing to put out before more is taken."""
        return not self._out

    @property
    def eof(self) -> bool:
        """Whether the frame has ended, and everything was put out."""
        return self._object.eof and not self._out

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        return self._object.unused_data + bytes(self.unconsumed_tail)


def _zstd(source: Source) -> Source:
    import zstandard

    return _Members(source, _ZstdFrame, (zstandard.ZstdError,))


_READERS: dict[str, Callable[[Source], Source]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "bzip2": lambda source: _Members(source, bz2.BZ2Decompressor, (OSError, ValueError)),
    "xz": lambda source: _Members(source, lzma.LZMADecompressor, (lzma.LZMAError,)),
}
