"""Layers unpacked before their parent look like layers unpacked one after the other."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lading.archive import Archives
from lading.hooks.common import Mount
from lading.hooks.filesystem import LayerDirectory, Whiteouts
from lading.linux import mounts, syscalls

from .conftest import Tar, bound, stream

pytestmark = pytest.mark.root

OLD = 900_000_000


class Pair:
    """A parent, and a layer on it in both ways."""

    def __init__(self, archives: Archives, root: Path) -> None:
        self._archives, self._root = archives, root
        self._count = 0

    def _folder(self) -> Path:
        self._count += 1
        made = self._root / str(self._count)
        made.mkdir()
        return made

    def parent(self, tar: Tar) -> Path:
        made = self._folder()
        self._archives.apply(bound(made), stream(tar.bytes()))
        return made

    def one_after_the_other(self, parent: Path, data: bytes) -> dict[str, Any]:
        upper, work, top = self._folder(), self._folder(), self._folder()
        options = (f"lowerdir={parent}", f"upperdir={upper}", f"workdir={work}")
        mount = Mount("overlay", "overlay", options)
        self._archives.apply(type(bound(top))((mount,)), stream(data))
        return seen(mount, top)

    def ahead(self, parent: Path, data: bytes) -> dict[str, Any] | None:
        """None when the layer has to be unpacked on its parent."""
        upper, top = self._folder(), self._folder()
        layer = LayerDirectory(upper, Whiteouts.OVERLAY)
        applied = self._archives.apply_directory(layer, stream(data), parent=True)
        if applied is None:
            return None
        below = [Mount("bind", str(parent), ("rbind", "ro"))]
        if not (applied.settled or self._archives.adopt(layer, below, applied)):
            return None
        return seen(Mount("overlay", "overlay", (f"lowerdir={upper}:{parent}",)), top)


def seen(mount: Mount, top: Path) -> dict[str, Any]:
    """Everything that a mount shows, with mode, owner, content, and time where that is old."""
    mounts.mount_recipe([mount], str(top))
    try:
        found = {}
        for path in sorted(top.rglob("*")):
            status = path.lstat()
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            # Directories that nobody has an entry for are of this moment.
            mtime = int(status.st_mtime) if status.st_mtime < 1_500_000_000 else "now"
            if mtime == "now" and stat.S_ISDIR(status.st_mode) and not holds_anything(path):
                # The layer has but marks of deletion in it: there or not, nothing is lost.
                continue
            row = (oct(status.st_mode), status.st_uid, status.st_gid, content, mtime)
            attributes = [
                n for n in os.listxattr(path, follow_symlinks=False) if "overlay" not in n
            ]
            found[str(path.relative_to(top))] = (*row, attributes)
        return found
    finally:
        syscalls.umount2(str(top), syscalls.MNT_DETACH)


def holds_anything(folder: Path) -> bool:
    return any(not path.is_dir() or path.is_symlink() for path in folder.rglob("*"))


@pytest.fixture
def pair(archives: Archives, tmp_path: Path) -> Pair:
    return Pair(archives, tmp_path)


def base() -> Tar:
    tar = Tar().add("d", type=b"5", mode=0o2750, owner=(7, 8), mtime=OLD)
    tar.add("d/e", type=b"5", mode=0o1777, owner=(9, 9), mtime=OLD + 1).add("d/e/old").add("d/kept")
    return tar.symlink("link", "d").add("file").add("x", type=b"5", mode=0o711, mtime=OLD)


@pytest.mark.parametrize(
    "tar",
    [
        Tar().add("d/new"),
        Tar().add("d/e/f/g/new").add("fresh/new"),
        Tar().add("d/.wh.kept").add("d/e/.wh.old"),
        Tar().add("d/new").directory("d", 0o700),
        Tar().add("d/e/new").add("d/.wh..wh..opq"),
        Tar().add("d/.wh.e").add("d/e/new"),
        Tar().add("d/e/new").add("d/.wh.e"),
        Tar().add("d/e/.wh.old").add("d/.wh.e"),
        Tar().add("d/e/.wh.old").add("d/.wh..wh..opq"),
        Tar().add(".wh.d").add("d/e/new"),
        Tar().add(".wh.d").directory("d").add("d/e/new"),
        Tar().add("x/a/b").add("x/a").add("x/a/c"),
        Tar().add("d/e", b"now a file").directory("d/e"),
    ],
)
def test_the_same_as_one_after_the_other(pair: Pair, tar: Tar) -> None:
    parent, data = pair.parent(base()), tar.bytes()
    expected = pair.one_after_the_other(parent, data)
    found = pair.ahead(parent, data)
    assert found in (None, expected)


def test_what_the_parent_has_stays(pair: Pair) -> None:
    parent = pair.parent(base())
    os.setxattr(parent / "d", "user.mine", b"1")
    found = pair.ahead(parent, Tar().add("d/e/new").bytes())
    assert found is not None
    assert found["d"] == ("0o42750", 7, 8, None, OLD, ["user.mine"])
    assert found["d/e"] == ("0o41777", 9, 9, None, OLD + 1, [])
    assert set(found) >= {"d/kept", "d/e/old", "d/e/new"}


@pytest.mark.parametrize(
    "tar", [Tar().add("link/new"), Tar().add("file/new"), Tar().add("link/e/new")]
)
def test_where_the_parent_has_no_directory_it_is_asked(pair: Pair, tar: Tar) -> None:
    """Files go where the parent's links lead."""
    assert pair.ahead(pair.parent(base()), tar.bytes()) is None


def test_a_link_of_the_layer_itself_needs_the_parent(pair: Pair) -> None:
    tar = Tar().symlink("way", "d/e").add("way/new")
    parent, data = pair.parent(base()), tar.bytes()
    assert pair.ahead(parent, data) is None
    assert "d/e/new" in pair.one_after_the_other(parent, data)


def test_links_of_the_parent_lead_nowhere(pair: Pair, tmp_path: Path) -> None:
    """An entry for a directory hides the parent's link: what is behind that is not looked at."""
    (tmp_path / "outside/in").mkdir(parents=True, mode=0o700)
    parent = pair.parent(Tar().symlink("l", str(tmp_path / "outside")))
    found = pair.ahead(parent, Tar().directory("l").add("l/in/new").bytes())
    assert found is not None
    assert found["l/in"][0] == "0o40755"


def test_any_layer(pair: Pair) -> None:
    """Layers of random entries: never another result, and mostly one."""
    source = random.Random(20140509)
    names = ["d", "d/e", "d/e/f", "x", "x/y", "n", "n/m", "n/m/o"]
    settled = 0
    for _ in range(60):
        parent, tar = pair.parent(base()), Tar()
        for _ in range(source.randint(1, 6)):
            path = source.choice(names)
            above, _, name = path.rpartition("/")
            kind = source.choice(["file", "file", "below", "below", "directory", "gone", "opaque"])
            if kind == "directory":
                tar.directory(path, source.choice((0o700, 0o755)))
            elif kind == "gone":
                tar.add(f"{above}/.wh.{name}".lstrip("/"))
            elif kind == "opaque":
                tar.add(f"{path}/.wh..wh..opq")
            else:
                tar.add(f"{path}/new" if kind == "below" else path, path.encode())
        data = tar.bytes()
        found = pair.ahead(parent, data)
        settled += found is not None
        expected = pair.one_after_the_other(parent, data)
        assert found in (None, expected), list_of(data)
    assert settled > 20


def list_of(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()
