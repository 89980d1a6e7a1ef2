"""Paths inside a root that somebody else controls, by openat2 and by walking."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.linux import paths, syscalls


@pytest.fixture(params=["openat2", "walk"])
def root(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """A root with a few links in it, and something outside that they must not reach."""
    if request.param == "walk":
        monkeypatch.setattr(syscalls, "openat2", _missing)
    (tmp_path / "outside").write_text("outside")
    top = tmp_path / "root"
    (top / "etc").mkdir(parents=True)
    (top / "etc/file").write_text("inside")
    (top / "outside").write_text("inside")
    (top / "absolute").symlink_to("/etc/file")
    (top / "climbing").symlink_to("../../../outside")
    (top / "etc/up").symlink_to("../outside")
    (top / "dangling").symlink_to("/made/by/link")
    (top / "loop").symlink_to("loop")
    with paths.opened_root(top) as descriptor:
        yield descriptor


def _missing(*_: object) -> int:
    raise OSError(errno.ENOSYS, "openat2")


@pytest.mark.parametrize(
    "path", ["absolute", "/absolute", "climbing", "etc/up", "etc/../outside", "../../outside"]
)
def test_links_and_dots_stay_inside(root: int, path: str) -> None:
    assert paths.read_file(root, path) == b"inside"


def test_missing_loops_and_kinds(root: int) -> None:
    for path, number in (("none", errno.ENOENT), ("loop", errno.ELOOP), ("etc", errno.EINVAL)):
        with pytest.raises(OSError) as caught:
            paths.read_file(root, path)
        assert caught.value.errno == number


def test_the_last_link_is_not_followed_when_asked(root: int) -> None:
    descriptor = paths.open_in_root(root, "absolute", os.O_PATH | os.O_NOFOLLOW)
    try:
        assert os.readlink(b"", dir_fd=descriptor) == b"/etc/file"
    finally:
        os.close(descriptor)


def test_no_links_at_all_when_asked(root: int) -> None:
    with pytest.raises(OSError) as caught:
        paths.open_in_root(root, "absolute", os.O_RDONLY, links=False)
    assert caught.value.errno == errno.ELOOP
    os.close(paths.open_in_root(root, "etc/file", os.O_RDONLY, links=False))


def test_directories_are_made_where_links_lead(root: int, tmp_path: Path) -> None:
    descriptor = paths.make_directories(root, "dangling/a", 0o700)
    os.close(descriptor)
    assert (tmp_path / "root/made/by/link/a").is_dir()
    assert (tmp_path / "root/made/by/link/a").stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]


def test_files_are_made_where_links_lead(root: int, tmp_path: Path) -> None:
    os.close(paths.make_file(root, "dangling"))
    assert (tmp_path / "root/made/by/link").is_file()
    os.close(paths.make_file(root, "etc/new", 0o600))
    assert (tmp_path / "root/etc/new").stat().st_mode & 0o777 == 0o600
    os.close(paths.make_file(root, "etc/file"))
    assert paths.read_file(root, "etc/file") == b"inside"


def test_links_without_an_end(root: int) -> None:
    for make in (paths.make_directories, paths.make_file):
        with pytest.raises(OSError) as caught:
            make(root, "loop/x")
        assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way(root: int) -> None:
    with pytest.raises(NotADirectoryError):
        paths.make_directories(root, "etc/file/below")


def test_parents(root: int) -> None:
    parent, name = paths.open_parent(root, "new/place/x", make=True)
    os.close(parent)
    assert name == b"x"
    for path in ("", "/", "etc/.."):
        with pytest.raises(OSError):
            paths.open_parent(root, path)


def test_nothing_stays_open(root: int) -> None:
    before = os.listdir("/proc/self/fd")
    test_links_without_an_end(root)
    test_missing_loops_and_kinds(root)
    assert os.listdir("/proc/self/fd") == before
