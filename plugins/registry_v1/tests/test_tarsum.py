"""The checksum over a layer's files."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile

import pytest

from lading_registry_v1.tarsum import tarsum


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("d")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, 7
        tar.addfile(folder)
        file = tarfile.TarInfo("d/f")
        file.size, file.mode, file.uid, file.uname, file.mtime = 3, 0o644, 5, "me", 9
        tar.addfile(file, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("l")
        link.type, link.linkname, link.mode = tarfile.SYMTYPE, "d/f", 0o777
        tar.addfile(link)
    return out.getvalue()


def by_hand(document: bytes) -> str:
    """The rule, spelled out: fields in this order, numbers decimal, nothing between them."""
    lines = [
        b"named/mode493uid0gid0size0mtime7typeflag5linknameunamegnamedevmajor0devminor0",
        b"named/fmode420uid5gid0size3mtime9typeflag0linknameunamemegnamedevmajor0devminor0abc",
        b"namelmode511uid0gid0size0mtime0typeflag2linknamed/funamegnamedevmajor0devminor0",
    ]
    sums = sorted(hashlib.sha256(line).hexdigest() for line in lines)
    return "tarsum+sha256:" + hashlib.sha256(document + "".join(sums).encode()).hexdigest()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_sum_of_a_layer(pack: object) -> None:
    content = pack(archive())  # type: ignore[operator]
    assert tarsum(b"{}", io.BytesIO(content)) == by_hand(b"{}")


@pytest.mark.parametrize("content", [b"", gzip.compress(b""), gzip.compress(bytes(1024))])
def test_sum_of_an_empty_layer(content: bytes) -> None:
    expected = "tarsum+sha256:" + hashlib.sha256(b"{}").hexdigest()
    assert tarsum(b"{}", io.BytesIO(content)) == expected


def test_what_is_no_tar_has_no_sum() -> None:
    assert tarsum(b"{}", io.BytesIO(b"no tar " * 200)) == ""
