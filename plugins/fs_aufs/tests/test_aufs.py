"""What can be seen of the backend without the kernel's part."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.errors import Unsupported
from lading.hooks import Context
from lading.hooks.filesystem import Whiteouts
from lading.linux.mounts import MS_RDONLY, MS_REMOUNT, parse_options
from lading_fs_aufs import Aufs


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
        backend.commit(key="a", name=f"c{number}")
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


def test_layers_are_in_aufs_form(backend: Aufs) -> None:
    backend.prepare(key="x", parent="", labels={})
    assert backend.layer_directory(key="x").whiteouts is Whiteouts.AUFS


def test_limits_are_refused(backend: Aufs) -> None:
    with pytest.raises(Unsupported):
        backend.prepare(key="x", parent="", labels={"lading.size": "1"})
