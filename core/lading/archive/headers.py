"""Headers of tar entries: read in all dialects, written as POSIX pax.

Sources: POSIX.1-2017 "pax Interchange Format", the GNU tar manual ("Basic Tar Format", "Storing
Sparse Files"), Go's archive/tar for what layers in the wild hold. Names are bytes throughout: a
layer may hold names that are not valid UTF-8.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lading.errors import Invalid

BLOCK = 512
#: In nanoseconds.
SECOND = 1_000_000_000

FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)
_GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE = b"L", b"K", b"S"
_PAX, _PAX_GLOBAL = b"x", b"g"
#: Larger extended headers are refused: they have to be held in memory.
LARGEST_EXTENSION = 1 << 20

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12s")

XATTR = b"SCHILY.xattr."


@dataclass(slots=True)
class Entry:
    """One entry. ``size`` is that of the data in the archive, ``real_size`` of the file.

    ``mtime`` is in nanoseconds since 1970. ``sparse`` lists (offset, length) of the data of a
    sparse file; None for others.
    """

    name: bytes
    type: bytes = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    real_size: int = 0
    sparse: Sequence[tuple[int, int]] | None = None


def number(text: bytes) -> int:
    """A numeric field: octal, or base 256 when the first bit is set (GNU). Raises Invalid."""
    if text and text[0] & 0x80:
        value = int.from_bytes(text, "big")
        bits = 8 * len(text)
        # The first bit is a marker, the second the sign.
        if text[0] & 0x40:
            return value - (1 << bits)
        return value & ~(1 << bits - 1)
    stripped = text.strip(b" \0")
    end = stripped.find(b"\0")
    try:
        return int(stripped if end < 0 else stripped[:end], 8) if stripped else 0
    except ValueError as error:
        raise Invalid(f"tar header: bad number {text!r}") from error


def parse(block: bytes) -> Entry | None:
    """One plain header; None for a block of zeros. Raises Invalid for a wrong checksum."""
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, _, major, minor,
     prefix, _) = _FIELDS.unpack(block)  # fmt: skip
    if not name[0] and not checksum[0] and block == bytes(BLOCK):
        return None
    expected = number(checksum)
    # The checksum field itself counts as blanks (32 each).
    total = sum(block) - sum(checksum) + 256
    if total != expected and not _signed_checksum(block, checksum, expected):
        raise Invalid("tar header: wrong checksum")
    path = name.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        path = prefix.partition(b"\0")[0] + b"/" + path
    if kind in (b"\0", b"7"):
        kind = DIRECTORY if kind == b"\0" and path.endswith(b"/") else FILE
    length = number(size)
    if length < 0:
        raise Invalid("tar header: negative size")
    return Entry(
        path, kind, number(mode) & 0o7777, number(uid), number(gid), length,
        number(mtime) * SECOND,
        link.partition(b"\0")[0],
        number(major) if kind in (CHARACTER, BLOCK_DEVICE) else 0,
        number(minor) if kind in (CHARACTER, BLOCK_DEVICE) else 0,
        real_size=length,
    )  # fmt: skip


def _signed_checksum(block: bytes, checksum: bytes, expected: int) -> bool:
    """Some old writers added up signed bytes."""
    signed = sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", checksum)) + 256
    return bool(signed == expected)


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax extended header; an empty value takes one back. Raises Invalid.

    GNU sparse format 0.0 repeats two keys for each piece of data: they become 0.1's one record.
    """
    records: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    position = 0
    while position < len(data) and data[position] != 0:
        match = re.match(rb"(\d{1,10}) ", data[position : position + 12])
        if match is None:
            raise Invalid("tar header: damaged extended header")
        length = int(match.group(1))
        record = data[position + match.end() : position + length]
        key, equals, value = record.partition(b"=")
        if length <= match.end() or not equals or not value.endswith(b"\n"):
            raise Invalid("tar header: damaged extended header")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value[:-1])
        else:
            records[key] = value[:-1]
        position += length
    if pieces:
        records[b"GNU.sparse.map"] = b",".join(pieces)
    return records


def extend(entry: Entry, records: Mapping[bytes, bytes]) -> None:
    """Let pax records override what the plain header says. Raises Invalid."""
    try:
        for key, value in records.items():
            if not value:
                continue
            if key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.link = value
            elif key == b"size":
                entry.size = entry.real_size = int(value)
            elif key == b"uid":
                entry.uid = int(value)
            elif key == b"gid":
                entry.gid = int(value)
            elif key == b"mtime":
                entry.mtime = _nanoseconds(value)
        _sparse(entry, records)
    except ValueError as error:
        raise Invalid(f"tar header: {error}") from error
    if entry.size < 0:
        raise Invalid("tar header: negative size")
    xattrs = {
        key[len(XATTR) :].decode("utf-8", "surrogateescape"): value
        for key, value in records.items()
        if key.startswith(XATTR)
    }
    if xattrs:
        entry.xattrs = xattrs


def _nanoseconds(text: bytes) -> int:
    """Seconds in decimal, with any number of digits after the point."""
    match = re.fullmatch(rb"(-?)(\d{1,18})(?:\.(\d*))?", text)
    if match is None:
        raise ValueError(f"bad time {text!r}")
    value = int(match[2]) * SECOND + int((match[3] or b"").ljust(9, b"0")[:9])
    return -value if match[1] else value


def _sparse(entry: Entry, records: Mapping[bytes, bytes]) -> None:
    """GNU sparse formats 0.1 (map in a record) and 1.0 (map before the data: "" until read)."""
    if b"GNU.sparse.name" in records:
        entry.name = records[b"GNU.sparse.name"]
    if b"GNU.sparse.realsize" in records or b"GNU.sparse.size" in records:
        entry.real_size = int(
            records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or 0
        )
    if b"GNU.sparse.map" in records:
        values = [int(v) for v in records[b"GNU.sparse.map"].split(b",")]
        entry.sparse = list(zip(values[::2], values[1::2], strict=True))
    elif records.get(b"GNU.sparse.major") == b"1":
        entry.sparse = ()


def old_gnu_sparse(block: bytes) -> tuple[list[tuple[int, int]], bool, int]:
    """The map in a header of type ``S``: (segments, more follow, real size)."""
    segments = _segments(block[386:482])
    return segments, block[482] != 0, number(block[483:495])


def more_old_gnu_sparse(block: bytes) -> tuple[list[tuple[int, int]], bool]:
    """The map in an extension block: (segments, more follow)."""
    return _segments(block[:504]), block[504] != 0


def _segments(data: bytes) -> list[tuple[int, int]]:
    found = []
    for position in range(0, len(data), 24):
        if not data[position]:
            break
        offset, length = data[position : position + 12], data[position + 12 : position + 24]
        found.append((number(offset), number(length)))
    return found


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def build(entry: Entry) -> bytes:
    """The header blocks of an entry: plain ustar, after an extended header where it needs one."""
    records: dict[bytes, bytes] = {}
    prefix, name = _split(entry.name)
    if name is None:
        records[b"path"] = entry.name
        prefix, name = b"", entry.name[:100]
    link = entry.link
    if len(link) > 100:
        records[b"linkpath"], link = link, link[:100]
    sizes = {}
    for key, value, most in (
        (b"size", entry.size, 0o77777777777),
        (b"uid", entry.uid, 0o7777777),
        (b"gid", entry.gid, 0o7777777),
    ):
        if value > most:
            records[key], value = b"%d" % value, 0
        sizes[key] = value
    mtime = entry.mtime // SECOND
    if not 0 <= mtime <= 0o77777777777:
        records[b"mtime"], mtime = b"%d" % mtime, 0
    for attribute, content in entry.xattrs.items():
        records[XATTR + attribute.encode("utf-8", "surrogateescape")] = content
    plain = _block(
        name, entry.mode, sizes[b"uid"], sizes[b"gid"], sizes[b"size"], mtime, entry.type, link,
        entry.major, entry.minor, prefix,
    )  # fmt: skip
    return _extended(entry.name, records) + plain if records else plain


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """A name as ustar's prefix and name; (b"", None) when it does not fit."""
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, 156)
    if len(name) > 256 or cut <= 0 or len(name) - cut - 1 > 100 or cut == len(name) - 1:
        return b"", None
    return name[:cut], name[cut + 1 :]


def _extended(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    stem = name.rstrip(b"/").rpartition(b"/")[2][:80]
    head = _block(b"PaxHeaders.0/" + stem, 0o644, 0, 0, len(data), 0, _PAX, b"", 0, 0, b"")
    return head + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if len(str(length)) > len(str(size)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, link: bytes,
    major: int, minor: int, prefix: bytes,
) -> bytes:  # fmt: skip
    head = b"".join(
        (
            name.ljust(100, b"\0"), _octal(mode, 8), _octal(uid, 8), _octal(gid, 8),
            _octal(size, 12), _octal(mtime, 12),
        )
    )  # fmt: skip
    tail = b"".join(
        (
            kind, link.ljust(100, b"\0"), b"ustar\00000", bytes(64), _octal(major, 8),
            _octal(minor, 8), prefix.ljust(155, b"\0"), bytes(12),
        )
    )  # fmt: skip
    checksum = sum(head) + sum(tail) + 256
    return b"%s%06o\0 %s" % (head, checksum, tail)


def clean(name: bytes) -> bytes:
    """A name without ``.``, ``..`` and doubled slashes; "" for the root. Raises Invalid."""
    if b"/." not in name and b"//" not in name and not name.startswith((b"/", b".")):
        return name.rstrip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Invalid(f'archive: the name "{os.fsdecode(name)}" leads out of the root')
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
