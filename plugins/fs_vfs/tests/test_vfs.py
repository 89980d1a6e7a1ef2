"""What plain copies have beyond the contract: where the host can, they share their blocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.hooks import Context
from lading.testing.volumes import loop_volume
from lading_fs_vfs import Vfs

pytestmark = pytest.mark.root

SIZE = 64 << 20


def used(place: Path) -> int:
    os.sync()
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.parametrize(("kind", "shares"), [("xfs", True), ("btrfs", True), ("ext4", False)])
def test_copies_share_their_blocks_where_the_filesystem_can(
    kind: str, shares: bool, tmp_path: Path
) -> None:
    with loop_volume(kind, tmp_path, size=512 << 20) as place:
        data = place / "data"
        data.mkdir()
        backend = Vfs(Context("vfs", data, data))
        probe = backend.probe()
        assert probe.details["Reflinks"] == str(shares).lower()
        assert bool(probe.warnings) is not shares
        top = Path(backend.prepare(key="a", parent="", labels={})[0].source)
        (top / "large").write_bytes(os.urandom(SIZE))
        backend.commit(key="a", name="base")
        before = used(place)
        copy = Path(backend.prepare(key="b", parent="base", labels={})[0].source) / "large"
        grown = used(place) - before
        assert grown < SIZE / 4 if shares else grown >= SIZE
        with copy.open("r+b") as file:
            file.write(b"changed")
        assert (top / "large").read_bytes()[:7] != b"changed"
        assert copy.read_bytes()[7:] == (top / "large").read_bytes()[7:]
