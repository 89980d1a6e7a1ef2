"""What btrfs has beyond the contract."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lading.archive import differ
from lading.hooks import Context
from lading.testing.waiting import until
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


def test_a_limit_goes_with_its_snapshot(backend: Btrfs, volume: Path) -> None:
    def groups() -> set[str]:
        shown = subprocess.run(
            ["btrfs", "qgroup", "show", "--sync", volume], capture_output=True, text=True
        )
        return {line.split()[0] for line in shown.stdout.splitlines() if line.startswith("0/")}

    backend.prepare(key="first", parent="", labels={"lading.size": str(8 << 20)})
    before = groups()
    backend.prepare(key="a", parent="", labels={"lading.size": str(8 << 20)})
    assert len(groups() - before) == 1
    backend.remove(key="a")

    def gone() -> bool:
        subprocess.run(["btrfs", "subvolume", "sync", volume], capture_output=True)
        return not groups() - before

    until(gone, "the group stays")


def test_subvolumes_made_inside_go_along(backend: Btrfs) -> None:
    top = Path(backend.prepare(key="a", parent="", labels={})[0].source)
    (top / "d").mkdir()
    subvolumes.create(top / "d/inner")
    subvolumes.create(top / "d/inner/innermost")
    subvolumes.set_read_only(top / "d/inner/innermost", read_only=True)
    backend.remove(key="a")
    gone = top.parent.with_name(f"gone-{top.parent.name}")
    until(lambda: not gone.exists(), f"{gone} stays")


def tree(top: Path) -> None:
    for number in range(12):
        (top / f"d{number % 4}/s{number % 3}").mkdir(parents=True, exist_ok=True)
        (top / f"d{number % 4}/s{number % 3}/f{number}").write_text(str(number))
    os.link(top / "d0/s0/f0", top / "d1/linked")


def disturb(top: Path, chance: random.Random) -> None:
    """Change something, in any way that a filesystem knows."""
    everything = sorted(top.rglob("*"))
    directories = [top, *(p for p in everything if p.is_dir())]
    files = [p for p in everything if not p.is_dir()]
    some, other = chance.choice(everything), chance.choice(everything)
    new = chance.choice(directories) / f"n{chance.randrange(6)}"
    with contextlib.suppress(OSError, shutil.Error):
        match chance.randrange(9):
            case 0:
                new.write_text("new")
            case 1:
                new.mkdir()
            case 2:
                os.rename(some, new)
            case 3:
                os.rename(some, other)
            case 4:
                exchange(some, other)
            case 5:
                os.link(chance.choice(files), new)
            case 6:
                shutil.rmtree(some) if some.is_dir() else some.unlink()
            case 7:
                some.chmod(0o700 + chance.randrange(64))
            case 8:
                chance.choice(files).write_text("changed")


def exchange(one: Path, two: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    libc = ctypes.CDLL(None)
    libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(two), 2)


@pytest.mark.parametrize("seed", range(25))
def test_differences_at_the_changed_paths_are_all_there_are(backend: Btrfs, seed: int) -> None:
    chance = random.Random(seed)
    base = Path(backend.prepare(key="making", parent="", labels={})[0].source)
    tree(base)
    backend.commit(key="making", name="base")
    top = Path(backend.prepare(key="a", parent="base", labels={})[0].source)
    for _ in range(chance.randrange(1, 12)):
        disturb(top, chance)
    lower, upper = os.fsencode(base), os.fsencode(top)
    only = differ.names(backend.changed_paths(key="a"))
    found = [(d.path, d.kind) for d in differ.compare(lower, upper, only)]
    assert found == [(d.path, d.kind) for d in differ.compare(lower, upper)]


def test_changed_paths_read_what_was_changed_and_not_the_whole_tree(backend: Btrfs) -> None:
    base = Path(backend.prepare(key="making", parent="", labels={})[0].source)
    for number in range(3000):
        (base / f"{number % 30}").mkdir(exist_ok=True)
        (base / f"{number % 30}/{number}").write_text("x")
    backend.commit(key="making", name="base")
    top = Path(backend.prepare(key="a", parent="base", labels={})[0].source)
    (top / "7/new").write_text("new")
    (top / "9/39").unlink()
    assert list(backend.changed_paths(key="a")) == [b"7", b"7/new", b"9", b"9/39"]
    assert backend.usage(key="a").inodes < 10


def test_data_appended_just_now_is_a_change(backend: Btrfs) -> None:
    """btrfs has no record of it before it is written back."""
    base = Path(backend.prepare(key="making", parent="", labels={})[0].source)
    (base / "f").write_text("old\n")
    backend.commit(key="making", name="base")
    top = Path(backend.prepare(key="a", parent="base", labels={})[0].source)
    with (top / "f").open("a") as file:
        file.write("new\n")
    assert list(backend.changed_paths(key="a")) == [b"f"]
