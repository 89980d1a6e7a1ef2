"""What overlayfs has beyond the contract."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.errors import Invalid, Unsupported
from lading.hooks import Context
from lading.linux import mounts, syscalls
from lading.testing.volumes import loop_volume
from lading_fs_overlay import Overlay, quota

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


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


def test_volatile_is_what_the_kernel_mounts_and_can_be_mounted_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    place = tmp_path / "place"
    place.mkdir()
    context = Context("overlay", tmp_path / "data", tmp_path / "data", {"volatile": True})
    backend = Overlay(context)
    assert backend.probe().details["Volatile"] == "true"
    backend.prepare(key="a", parent="", labels={})
    backend.commit(key="a", name="base")
    backend.prepare(key="b", parent="base", labels={})
    for text in ("one", "two"):
        mounts.mount_recipe(Overlay(context).mounts(key="b"), place)
        try:
            (line,) = [
                x for x in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in x
            ]
            # Some kernels show it as "fsync=volatile".
            assert "volatile" in line.rpartition(" - overlay ")[2]
            (place / text).write_text(text)
        finally:
            syscalls.umount2(str(place), syscalls.MNT_DETACH)
        # The kernel's mark, for which it would refuse to mount it again.
        assert (tmp_path / "data/snapshots/2/work/work/incompat/volatile").exists()
    assert backend.layer_directory(key="b").path.joinpath("one").read_text() == "one"


def test_options_are_read_as_the_command_line_gives_them_and_unknown_ones_refused(
    tmp_path: Path,
) -> None:
    def made(**options: object) -> Overlay:
        return Overlay(Context("overlay", tmp_path, tmp_path, options))

    assert not made(volatile="false").volatile
    assert made(volatile="true").volatile
    with pytest.raises(Invalid, match='option volatile: "perhaps" is not true or false'):
        made(volatile="perhaps")
    with pytest.raises(Invalid, match=r'unknown option "volatil".*known: volatile, userxattr'):
        made(volatil=True)


def test_marks_go_where_the_option_userxattr_says(tmp_path: Path) -> None:
    for userxattr, prefix in ((False, "trusted"), (True, "user")):
        data, place = tmp_path / f"data-{prefix}", tmp_path / f"place-{prefix}"
        data.mkdir()
        place.mkdir()
        backend = Overlay(Context("overlay", data, data, {"userxattr": userxattr}))
        if not backend.probe().usable:
            pytest.skip(backend.probe().reason)
        top = Path(backend.prepare(key="a", parent="", labels={})[0].source)
        (top / "d").mkdir()
        backend.commit(key="a", name="base")
        backend.prepare(key="b", parent="base", labels={})
        mounts.mount_recipe(backend.mounts(key="b"), place)
        try:
            (place / "d").rmdir()
            (place / "d").mkdir()
        finally:
            syscalls.umount2(str(place), syscalls.MNT_DETACH)
        own = backend.layer_directory(key="b").path / "d"
        assert f"{prefix}.overlay.opaque" in os.listxattr(own)


def test_ext4_with_project_quotas_is_refused_since_root_passes_its_limits(tmp_path: Path) -> None:
    with loop_volume("ext4", tmp_path, options="prjquota", size=100 * MEBIBYTE) as place:
        backend = Overlay(Context("overlay", place, place))
        with pytest.raises(Unsupported, match="has no project quotas that hold"):
            backend.prepare(key="a", parent="", labels={"lading.size": "1000000"})
