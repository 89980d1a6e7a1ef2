"""What committed snapshots share, and what they must not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lading_filesystem_hardlink import Hardlink

from lading.hooks import Context


@pytest.fixture
def backend(tmp_path: Path) -> Hardlink:
    (tmp_path / "data").mkdir()
    return Hardlink(Context("hardlink", tmp_path / "data", tmp_path))


def commit(backend: Hardlink, name: str, parent: str, change: Callable[[Path], object]) -> Path:
    """Make a committed snapshot and return its tree."""
    (recipe,) = backend.prepare(key=f"making-{name}", parent=parent, labels={})
    change(Path(recipe.source))
    backend.commit(key=f"making-{name}", name=name)
    return Path(recipe.source)


def test_equal_files_are_one(backend: Hardlink) -> None:
    base = commit(backend, "base", "", lambda top: (top / "big").write_bytes(b"x" * 100_000))
    top = commit(backend, "top", "base", lambda top: (top / "new").write_text("new"))
    assert (base / "big").stat().st_ino == (top / "big").stat().st_ino
    assert backend.usage(key="base").size > 100_000
    assert backend.usage(key="top").size < 20_000


def test_changed_files_are_not(backend: Hardlink) -> None:
    base = commit(backend, "base", "", lambda top: (top / "f").write_text("one"))
    top = commit(backend, "top", "base", lambda top: (top / "f").write_text("two"))
    assert ((base / "f").read_text(), (top / "f").read_text()) == ("one", "two")


def test_a_writable_snapshot_shares_nothing(backend: Hardlink) -> None:
    base = commit(backend, "base", "", lambda top: (top / "f").write_text("kept"))
    (recipe,) = backend.prepare(key="container", parent="base", labels={})
    (Path(recipe.source) / "f").write_text("changed in place")
    assert (base / "f").read_text() == "kept"


def test_two_names_never_become_one(backend: Hardlink) -> None:
    def linked(top: Path) -> None:
        (top / "a").write_text("same")
        (top / "b").hardlink_to(top / "a")

    def apart(top: Path) -> None:
        times = (top / "a").stat()
        for name in ("a", "b"):
            (top / name).unlink()
            (top / name).write_text("same")
            os.utime(top / name, ns=(times.st_atime_ns, times.st_mtime_ns))

    commit(backend, "base", "", linked)
    top = commit(backend, "top", "base", apart)
    assert (top / "a").stat().st_ino != (top / "b").stat().st_ino
