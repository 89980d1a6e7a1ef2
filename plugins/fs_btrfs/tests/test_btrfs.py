"""What btrfs has beyond the contract."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lading.hooks import Context
from lading_fs_btrfs import Btrfs, subvolumes

pytestmark = pytest.mark.root


@pytest.fixture
def backend(volume: Path) -> Btrfs:
    data = volume / f"b{time.monotonic_ns()}"
    data.mkdir()
    return Btrfs(Context("btrfs", data, data))


def test_a_data_directory_elsewhere_is_refused_with_a_remedy(tmp_path: Path) -> None:
    probe = Btrfs(Context("btrfs", tmp_path, tmp_path)).probe()
    if probe.usable:
        pytest.skip("temporary files are on btrfs on this host")
    assert "not on a btrfs filesystem" in probe.reason
    assert probe.remedy


def test_size_limits_hold_for_what_is_written_on_top_of_a_larger_parent(backend: Btrfs) -> None:
    base = Path(backend.prepare(key="making", parent="", labels={})[0].source)
    _fill(base / "large", 24 << 20)
    backend.commit(key="making", name="base")
    recipe = backend.prepare(key="a", parent="base", labels={"lading.size": str(8 << 20)})
    top = Path(recipe[0].source)
    _fill(top / "fits", 4 << 20)
    with pytest.raises(OSError, match="quota"):
        _fill(top / "f", 64 << 20)
    free = Path(backend.prepare(key="b", parent="base", labels={})[0].source)
    _fill(free / "f", 16 << 20)


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())


def test_committed_snapshots_cannot_be_written(backend: Btrfs) -> None:
    recipe = backend.prepare(key="a", parent="", labels={})
    backend.commit(key="a", name="base")
    with pytest.raises(OSError, match="Read-only"):
        (Path(recipe[0].source) / "f").touch()
    child = Path(backend.prepare(key="b", parent="base", labels={})[0].source)
    (child / "f").touch()


def test_subvolumes_made_inside_go_along(backend: Btrfs) -> None:
    top = Path(backend.prepare(key="a", parent="", labels={})[0].source)
    (top / "d").mkdir()
    subvolumes.create(top / "d/inner")
    subvolumes.create(top / "d/inner/innermost")
    subvolumes.set_read_only(top / "d/inner/innermost", read_only=True)
    backend.remove(key="a")
    gone = top.parent.with_name(f"gone-{top.parent.name}")
    for _ in range(200):
        if not gone.exists():
            break
        time.sleep(0.02)
    assert not gone.exists()
