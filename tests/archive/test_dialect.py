"""Headers by themselves: what is written is read again, by tarfile too; noise is refused."""

from __future__ import annotations

import io
import os
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from lading.archive import headers
from lading.archive.compression import opened
from lading.archive.headers import Entry
from lading.archive.reader import Reader
from lading.errors import Invalid

from .conftest import Tar

names = st.binary(min_size=1, max_size=300).filter(lambda n: b"\0" not in n and n.strip(b"/"))
entries = st.builds(
    Entry,
    name=names,
    type=st.sampled_from([headers.FILE, headers.DIRECTORY, headers.FIFO]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**31),
    gid=st.integers(0, 2**31),
    mtime=st.integers(-(10**10), 10**11).map(lambda seconds: seconds * headers.SECOND),
    xattrs=st.dictionaries(
        st.from_regex(r"user\.[a-z]{1,20}", fullmatch=True), st.binary(min_size=1), max_size=2
    ),
)


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = Reader(opened(io.BytesIO(data))[0])
    return [(entry, b"".join(reader.data())) for entry in reader]


@given(entries)
@settings(deadline=None)
def test_what_is_written_is_read_again(entry: Entry) -> None:
    ((found, content),) = read(headers.build(entry))
    assert content == b""
    for member in ("name", "type", "mode", "uid", "gid", "mtime", "xattrs"):
        assert getattr(found, member) == getattr(entry, member), member


@given(entries)
@settings(deadline=None)
def test_tarfile_reads_what_is_written(entry: Entry) -> None:
    data = headers.build(entry) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        (found,) = tar.getmembers()
    assert os.fsencode(found.name).rstrip(b"/") == entry.name.rstrip(b"/")
    assert (found.mode, found.uid, found.gid) == (entry.mode, entry.uid, entry.gid)
    assert found.mtime == entry.mtime // headers.SECOND


VALID = (
    Tar().add("f", b"content" * 100).add("l" * 200, pax={"mtime": "1.5"}).symlink("s", "t").bytes(),
    Tar(tarfile.GNU_FORMAT).add("g" * 300, b"x").hard_link("h", "g" * 300).bytes(),
)


@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 8191), st.binary(min_size=1, max_size=12)), max_size=6),
    st.integers(0, 8192),
)
@settings(deadline=None, max_examples=300)
def test_noise_is_read_or_refused(data: bytes, edits: list[tuple[int, bytes]], end: int) -> None:
    damaged = bytearray(data)
    for at, piece in edits:
        damaged[at : at + len(piece)] = piece
    # A checksum that fits lets the noise through to what is behind it.
    for at in range(0, len(damaged) - 511, 512):
        block = damaged[at : at + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 256
            damaged[at + 148 : at + 156] = b"%06o\0 " % total
    try:
        read(bytes(damaged[:end]))
    except Invalid:
        pass


@given(st.binary(max_size=2000), st.sampled_from([b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh",
                                                   b"\xfd7zXZ\x00"]))  # fmt: skip
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    try:
        read(magic + data)
    except Invalid:
        pass


def test_numbers_beyond_octal() -> None:
    assert headers.number(b"\x80" + b"\0" * 6 + b"\xff") == 255
    assert headers.number(b"\xff" * 8) == -1
    assert headers.number(b"0000644\0") == 0o644
    assert headers.number(b"   644 \0") == 0o644
