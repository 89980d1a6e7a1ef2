"""What overlayfs has beyond the contract."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.errors import Invalid, Unsupported
from lading.hooks import Context
from lading.linux import mounts, syscalls
from lading_fs_overlay import Overlay, quota

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """XFS with project quotas, in a file."""
    if not shutil.which("mkfs.xfs"):
        pytest.skip("no mkfs.xfs on this host")
    image, place = tmp_path / "image", tmp_path / "mnt"
    with image.open("wb") as file:
        file.truncate(400 * MEBIBYTE)
    place.mkdir()
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    mount = ["mount", "-o", "loop,prjquota", image, place]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no XFS with project quotas on this host")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def write(backend: Overlay, key: str, place: Path, size: int) -> int:
    """Write a file into a snapshot; returns how much it took."""
    place.mkdir(exist_ok=True)
    mounts.mount_recipe(backend.mounts(key=key), place)
    try:
        with (place / "f").open("wb", buffering=0) as file:
            try:
                for _ in range(size // MEBIBYTE):
                    file.write(bytes(MEBIBYTE))
            except OSError:
                pass
            return file.tell()
    finally:
        syscalls.umount2(str(place), syscalls.MNT_DETACH)


def test_limits_hold_on_top_of_a_parent(volume: Path, tmp_path: Path) -> None:
    backend = Overlay(Context("overlay", volume, volume))
    assert backend.probe().details["Project quotas"] == "true"
    backend.prepare(key="a", parent="", labels={})
    backend.commit(key="a", name="base")
    backend.prepare(key="free", parent="base", labels={})
    backend.prepare(key="small", parent="base", labels={"lading.size": str(8 * MEBIBYTE)})
    assert write(backend, "small", tmp_path / "place", 32 * MEBIBYTE) <= 8 * MEBIBYTE
    assert write(backend, "free", tmp_path / "place", 32 * MEBIBYTE) == 32 * MEBIBYTE


def test_inodes_are_limited(volume: Path, tmp_path: Path) -> None:
    backend = Overlay(Context("overlay", volume, volume))
    recipe = backend.prepare(key="a", parent="", labels={"lading.inodes": "20"})
    top = Path(recipe[0].source)
    with pytest.raises(OSError, match=r"quota|space"):
        [(top / str(number)).touch() for number in range(40)]


def test_without_project_quotas_limits_are_refused_with_a_remedy(tmp_path: Path) -> None:
    if quota.available(tmp_path):
        pytest.skip("temporary files have project quotas on this host")
    backend = Overlay(Context("overlay", tmp_path, tmp_path))
    with pytest.raises(Unsupported, match="prjquota"):
        backend.prepare(key="a", parent="", labels={"lading.size": "1000000"})
    with pytest.raises(Invalid):
        backend.prepare(key="a", parent="", labels={"lading.size": "much"})
    assert list(backend.walk()) == []


def test_the_writable_layer_can_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    backend = Overlay(Context("overlay", tmp_path / "data", tmp_path / "data"))
    backend.prepare(key="a", parent="", labels={})
    backend.commit(key="a", name="base")
    backend.prepare(key="b", parent="base", labels={"lading.path": str(elsewhere)})
    write(backend, "b", tmp_path / "place", MEBIBYTE)
    assert (elsewhere / "lading-b/fs/f").stat().st_size == MEBIBYTE
    backend.remove(key="b")
    assert list(elsewhere.iterdir()) == []
