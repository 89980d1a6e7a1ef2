"""Option words, recipes, namespaces and the procfs handle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lading.hooks.common import Mount
from lading.linux import capabilities, mounts, namespaces, paths, procfs, syscalls
from lading.testing.isolation import skip_unless_mappable


def test_words_are_sorted() -> None:
    found = mounts.parse_options(("ro", "nosuid", "rbind", "size=64k", "rslave", "", "defaults"))
    assert found.flags == mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_BIND | mounts.MS_REC
    assert found.propagation == mounts.MS_SLAVE | mounts.MS_REC
    assert found.data == ("size=64k",)


def test_the_last_word_wins() -> None:
    assert mounts.parse_options(("ro", "rw")).flags == 0
    assert (
        mounts.parse_options(("private", "rshared")).propagation == mounts.MS_SHARED | mounts.MS_REC
    )
    found = mounts.parse_options(("rro", "rrw"))
    assert (found.deep_set, found.deep_clear) == (0, syscalls.MOUNT_ATTR_RDONLY)
    assert mounts.parse_options(("idmap",)).idmap == "idmap"


def test_access_times_are_cleared_before_they_are_set() -> None:
    assert mounts.attributes(mounts.MS_NOATIME) == (
        syscalls.MOUNT_ATTR_NOATIME,
        syscalls.MOUNT_ATTR_ATIME_MASK,
    )
    assert mounts.attributes(mounts.MS_RELATIME) == (0, syscalls.MOUNT_ATTR_ATIME_MASK)


def test_capability_names() -> None:
    bits = capabilities.mask(["CAP_CHOWN", "cap_sys_admin"])
    assert bits == 1 | 1 << 21
    assert capabilities.names(bits) == ["CAP_CHOWN", "CAP_SYS_ADMIN"]
    with pytest.raises(OSError, match="CAP_DANCE"):
        capabilities.mask(["CAP_DANCE"])


def test_procfs_handle_cannot_be_led_away() -> None:
    proc = procfs.open_procfs()
    try:
        before = Path("/proc/self/comm").read_text()
        procfs.write(proc, "self/comm", "named")
        assert Path("/proc/self/comm").read_text() == "named\n"
        procfs.write(proc, "self/comm", before.strip())
        for name in ("../etc/hostname", "self/root/tmp/x", "self/cwd/x"):
            with pytest.raises(OSError):
                procfs.write(proc, name, "x")
    finally:
        os.close(proc)


def in_mount_namespace(body: Callable[[], None]) -> None:
    """Run in a child with mounts of its own; an exception there fails the test."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            namespaces.unshare_mounts()
            body()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.root
def test_recipe_with_a_target_inside(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").write_text("v")
    (tmp_path / "top").mkdir()

    def body() -> None:
        tmpfs = Mount("tmpfs", "tmpfs", ("mode=755",))
        mounts.mount_recipe([tmpfs], tmp_path / "top")
        (tmp_path / "top/place").mkdir()
        bind = Mount("bind", str(tmp_path / "volume"), ("bind", "ro"), "place")
        mounts.mount_recipe([bind], tmp_path / "top")
        assert (tmp_path / "top/place/file").read_text() == "v"
        with pytest.raises(OSError):
            (tmp_path / "top/place/file").write_text("w")

    in_mount_namespace(body)
    assert os.listdir(tmp_path / "top") == []


@pytest.mark.root
def test_overlay_with_more_options_than_a_page(tmp_path: Path) -> None:
    layers = [tmp_path / f"a-layer-with-quite-a-long-name-{number:03}" for number in range(90)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name[-3:]).touch()
    words = (f"lowerdir={':'.join(map(str, layers))}",)
    (tmp_path / "top").mkdir()

    def body() -> None:
        mounts.mount_recipe([Mount("overlay", "overlay", words)], tmp_path / "top")
        assert len(os.listdir(tmp_path / "top")) == 90

    in_mount_namespace(body)


@pytest.mark.root
def test_failures_name_the_mount(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/no/such"):
        mounts.mount_one(Mount("bind", "/no/such", ("bind",)), str(tmp_path))
    with pytest.raises(OSError, match="mount nosuchfs"):
        mounts.mount_one(Mount("nosuchfs", "x"), str(tmp_path))


@pytest.mark.root
def test_user_namespace_with_maps() -> None:
    descriptor = namespaces.new_user_namespace([(0, 100000, 10)], [(0, 200000, 10)])
    pid = os.fork()
    if pid == 0:
        syscalls.setns(descriptor, syscalls.CLONE_NEWUSER)
        rows = [Path(f"/proc/self/{name}_map").read_text().split() for name in ("uid", "gid")]
        os._exit(0 if rows == [["0", "100000", "10"], ["0", "200000", "10"]] else 1)
    os.close(descriptor)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(OSError, match="id map"):
        namespaces.new_user_namespace([(0, 1, 0)], [])


@pytest.mark.root
def test_mapped_mount(tmp_path: Path) -> None:
    skip_unless_mappable(tmp_path)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").touch()
    (tmp_path / "top").mkdir()
    userns = namespaces.new_user_namespace([(0, 100000, 10)], [(0, 100000, 10)])

    def body() -> None:
        bind = Mount("bind", str(tmp_path / "volume"), ("bind", "idmap"))
        mounts.mount_recipe([bind], tmp_path / "top", userns)
        assert (tmp_path / "top/file").stat().st_uid == 100000

    in_mount_namespace(body)
    os.close(userns)


@pytest.mark.root
def test_mounts_onto_descriptors(tmp_path: Path) -> None:
    (tmp_path / "top/place").mkdir(parents=True)

    def body() -> None:
        with paths.opened_root(tmp_path / "top") as root:
            place = paths.open_in_root(root, "place", os.O_PATH)
            mounts.mount_one(Mount("tmpfs", "tmpfs", ("rprivate", "size=64k")), place)
            os.close(place)
        assert os.path.ismount(tmp_path / "top/place")

    in_mount_namespace(body)
