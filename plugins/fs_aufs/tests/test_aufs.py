"""What can be seen of the backend without the kernel's part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from lading.archive.differ import ADDED, DELETED, in_layer
from lading.errors import Unsupported
from lading.hooks import Context, Mount
from lading.hooks.filesystem import Whiteouts
from lading.linux.mounts import MS_RDONLY, MS_REMOUNT, parse_options
from lading_fs_aufs import Aufs
from lading_fs_aufs.merge import merge


@pytest.fixture
def backend(tmp_path: Path) -> Aufs:
    for name in ("data", "run"):
        (tmp_path / name).mkdir()
    return Aufs(Context("aufs", tmp_path / "data", tmp_path / "run"))


def grow(backend: Aufs, depth: int) -> str:
    """A chain of committed snapshots; returns the last one's name."""
    parent = ""
    for number in range(depth):
        backend.prepare(key="a", parent=parent, labels={})
        # As the hook does, but for the disk.
        backend.table.commit("a", f"c{number}", durable=False)
        parent = f"c{number}"
    return parent


def test_a_kernel_without_aufs_is_told_with_a_remedy(backend: Aufs) -> None:
    probe = backend.probe()
    if probe.usable:
        pytest.skip("this kernel has AUFS: the conformance kit runs")
    assert probe.reason
    assert probe.remedy


def test_the_writable_branch_is_first(backend: Aufs) -> None:
    (mount,) = backend.prepare(key="x", parent=grow(backend, 2), labels={})
    branches = mount.options[0].removeprefix("br:").split(":")
    assert [b.rpartition("=")[2] for b in branches] == ["rw", "ro+wh", "ro+wh"]
    lowest = str(backend.layer_directory(key="c0").path)
    assert branches[-1] == f"{lowest}=ro+wh"


def test_a_view_has_no_writable_branch(backend: Aufs) -> None:
    (mount,) = backend.view(key="v", parent=grow(backend, 2), labels={})
    assert parse_options(mount.options).flags & MS_RDONLY
    assert "=rw" not in mount.options[1]


def test_many_branches_are_appended_in_order(backend: Aufs) -> None:
    recipe = backend.prepare(key="x", parent=grow(backend, 120), labels={})
    assert len(recipe) > 1
    seen: list[str] = []
    for number, mount in enumerate(recipe):
        options = parse_options(mount.options)
        assert bool(options.flags & MS_REMOUNT) == (number > 0)
        assert sum(len(word) + 1 for word in options.data) < os.sysconf("SC_PAGE_SIZE")
        for word in options.data:
            kind, _, value = word.partition(":")
            if kind in ("br", "append"):
                seen += [branch.partition("=")[0] for branch in value.split(":")]
    wanted = [str(backend.layer_directory(key=key).path) for key in ("x", "c119", "c0")]
    assert [seen[0], seen[1], seen[-1]] == wanted
    assert len(seen) == len(set(seen)) == 121


def test_one_mount_has_no_more_options_than_aufs_parses(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="l") as short:
        backend = Aufs(Context("aufs", Path(short), Path(short)))
        recipe = backend.prepare(key="x", parent=grow(backend, 120), labels={})
    for mount in recipe:
        options = parse_options(mount.options).data
        branches = sum(o.count(":") for o in options if o.startswith("br:"))
        # A page of 48 bytes each, the last of them for the end of the list.
        assert branches + len(options) < 4096 // 48


def test_no_two_recipes_share_a_table_of_inode_numbers(backend: Aufs) -> None:
    backend.prepare(key="x", parent="", labels={})
    words = [backend.mounts(key="x")[0].options for _ in range(2)]
    tables = [[o for o in options if o.startswith("xino=")] for options in words]
    assert len(tables[0]) == len(tables[1]) == 1
    assert tables[0] != tables[1]


def test_a_data_directory_with_a_separator_in_its_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "nodev\taufs\n")
    (tmp_path / "a:b").mkdir()
    probe = Aufs(Context("aufs", tmp_path / "a:b", tmp_path)).probe()
    assert not probe.usable
    assert 'has ":" in it' in probe.reason


def branches_of(recipe: Sequence[Mount]) -> list[str]:
    """The directories that a recipe stacks, uppermost first."""
    words = [word for mount in recipe for word in parse_options(mount.options).data]
    lists = [w.partition(":")[2] for w in words if w.startswith(("br:", "append:"))]
    return [branch.partition("=")[0] for text in lists for branch in text.split(":")]


def test_the_lower_hundreds_of_a_long_chain_are_one_branch(backend: Aufs) -> None:
    last = grow(backend, 126)
    assert len(branches_of(backend.prepare(key="x", parent=last, labels={}))) == 127
    backend.commit(key="x", name="c126")
    for number, path in enumerate(backend.layer_directory(key=f"c{n}").path for n in range(127)):
        (path / f"f{number}").touch()
    found = branches_of(backend.prepare(key="y", parent="c126", labels={}))
    assert len(found) == 29
    assert sorted(os.listdir(found[-1])) == sorted(f"f{n}" for n in range(100))
    assert branches_of(backend.prepare(key="z", parent="c126", labels={}))[1:] == found[1:]


def test_merging_shows_what_a_stack_shows(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    for path in (low / "kept", low / "hidden", low / "swapped", high / "hidden", high / "new"):
        path.mkdir(parents=True)
    for path in ("kept/a", "kept/gone", "hidden/old", "swapped/x", "link-to-be", ".wh..wh.aufs"):
        (low / path).write_text("low")
    os.link(low / "kept/a", low / "kept/twin")
    (low / "dangling").symlink_to("nowhere")
    (high / "kept").mkdir(mode=0o700)
    (high / "kept").chmod(0o700)
    for path in ("kept/.wh.gone", "hidden/.wh..wh..opq", "hidden/young", "swapped", "new/b"):
        (high / path).write_text("high")
    (high / "link-to-be").symlink_to("kept")
    os.setxattr(low / "kept", "user.below", b"1")
    os.utime(high / "kept", ns=(1, 123456789))
    merge([low, high], tmp_path / "whole")
    found = sorted(str(p.relative_to(tmp_path / "whole")) for p in (tmp_path / "whole").rglob("*"))
    assert found == [
        "dangling", "hidden", "hidden/young", "kept", "kept/a", "kept/twin", "link-to-be", "new",
        "new/b", "swapped",
    ]  # fmt: skip
    whole = tmp_path / "whole"
    assert (whole / "swapped").read_text() == "high"
    assert os.readlink(whole / "link-to-be") == "kept"
    assert os.path.samefile(whole / "kept/a", whole / "kept/twin")
    assert os.path.samefile(whole / "kept/a", low / "kept/a")
    assert (whole / "kept").stat().st_mtime_ns == 123456789
    assert (whole / "kept").stat().st_mode & 0o7777 == 0o700
    assert os.listxattr(whole / "kept") == []


def test_layers_are_in_aufs_form(backend: Aufs) -> None:
    backend.prepare(key="x", parent="", labels={})
    assert backend.layer_directory(key="x").whiteouts is Whiteouts.AUFS


def test_limits_are_refused(backend: Aufs) -> None:
    with pytest.raises(Unsupported):
        backend.prepare(key="x", parent="", labels={"lading.size": "1"})


def test_what_aufs_keeps_for_itself_is_no_change(tmp_path: Path) -> None:
    """Its own names in a branch, and a removed directory that the power cut kept it from ending."""
    for path in (".wh..wh.plnk", ".wh..wh.orph", "d/.wh.big.0a1b"):
        (tmp_path / path).mkdir(parents=True)
    for path in (".wh..wh.aufs", ".wh..wh.plnk/12", "d/.wh.big.0a1b/left", "d/.wh.gone", "d/new"):
        (tmp_path / path).touch()
    found = in_layer(os.fsencode(tmp_path), Whiteouts.AUFS, b"")
    assert [(d.path, d.kind) for d in found] == [
        (b"d", ADDED),
        (b"d/gone", DELETED),
        (b"d/new", ADDED),
    ]
