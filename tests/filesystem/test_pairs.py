"""A layer made on one backend unpacks to the same tree on every other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lading.archive import Archives, Root
from lading.hooks import Context
from lading.hooks.filesystem import LayerDirectory
from lading.monitor import Spawner
from lading.testing._filesystem_case import Case, xattrs
from lading.testing._filesystem_layers import base_tree, change_tree
from lading.testing.containerd import running_containerd
from lading.testing.volumes import loop_volume
from lading_fs_aufs import Aufs
from lading_fs_btrfs import Btrfs
from lading_fs_overlay import Overlay
from lading_fs_snapshotter import Snapshotter
from lading_fs_vfs import Vfs

pytestmark = pytest.mark.root

BACKENDS = ("overlay", "btrfs", "vfs", "aufs", "snapshotter")


@pytest.fixture(scope="module")
def archives() -> Iterator[Archives]:
    spawner = Spawner.launch(preload=["lading.archive.tasks"])
    yield Archives(spawner)
    spawner.close()


class Made:
    """Backends with a base, a changed snapshot, and both as layers; each made at first use."""

    def __init__(self, archives: Archives, root: Path, undo: ExitStack) -> None:
        self._archives, self._root, self._undo = archives, root, undo
        self._made: dict[str, Any] = {}

    def __call__(self, name: str) -> tuple[Case, Path, Path]:
        if name not in self._made:
            try:
                self._made[name] = self._make(name)
            except pytest.skip.Exception as reason:
                self._made[name] = reason
        found = self._made[name]
        if isinstance(found, pytest.skip.Exception):
            raise found
        return found  # type: ignore[no-any-return]

    def _make(self, name: str) -> tuple[Case, Path, Path]:
        root = self._root / name
        root.mkdir()
        factory: Callable[[Context], Any]
        if name == "btrfs":
            factory, root = Btrfs, self._undo.enter_context(loop_volume("btrfs", root))
        elif name == "snapshotter":
            options = {"address": self._undo.enter_context(running_containerd()).address}
            factory = lambda c: Snapshotter(replace(c, options=options))  # noqa: E731
        else:
            factory = {"overlay": Overlay, "vfs": Vfs, "aufs": Aufs}[name]
        case = Case.make(factory, root, "a layer unpacks to the same tree everywhere", {})
        case.commit("base", "", rich_tree)
        with case.active("above", "base") as top:
            change_tree(top)
            (top / "dir").chmod(0o2750)
        layers = (self._packed(case, "", "base"), self._packed(case, "base", "above"))
        case.backend.commit(key="above", name="c-above")
        return (case, *layers)

    def _packed(self, case: Case, below: str, key: str) -> Path:
        backend, tar = case.backend, self._root / f"{len(list(self._root.glob('*.tar')))}.tar"
        lower = backend.view(key=f"below-{key}", parent=below, labels={})
        directory: LayerDirectory | None = None
        if key == "base":
            upper = backend.view(key="base-seen", parent="base", labels={})
        else:
            upper = backend.mounts(key=key)
            if "layer-directory" in backend.capabilities:
                directory = backend.layer_directory(key=key)  # type: ignore[attr-defined]
        with tar.open("wb") as out:
            self._archives.diff(lower, upper, out.fileno(), directory)
        return tar


def rich_tree(top: Path) -> None:
    base_tree(top)
    (top / "dir/a").chmod(0o4711)
    (top / "opaque").chmod(0o1777)
    os.setxattr(top / "dir/b", "user.note", b"\x00binary\xff")
    os.chown(top / "link", 12, 34, follow_symlinks=False)
    os.chown(top / "kept", 1000, 70000)
    assert xattrs(top / "dir/b")


@pytest.fixture(scope="module")
def made(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with ExitStack() as undo:
        yield Made(archives, tmp_path_factory.mktemp("pairs"), undo)


@pytest.mark.parametrize("target", BACKENDS)
@pytest.mark.parametrize("source", BACKENDS)
def test_layers_of_one_backend_on_another(
    source: str, target: str, made: Made, archives: Archives
) -> None:
    origin, *layers = made(source)
    goal, *_ = made(target)
    parent = ""
    for number, tar in enumerate(layers):
        key = f"from-{source}-{number}"
        recipe = goal.backend.prepare(key=key, parent=parent, labels={})
        with tar.open("rb") as stream:
            archives.apply(Root(recipe), stream.fileno())
        goal.backend.commit(key=key, name=f"c-{key}")
        parent = f"c-{key}"
    goal.expect(origin.tree("base"), goal.tree(f"c-from-{source}-0"))
    goal.expect(origin.tree("c-above"), goal.tree(f"c-from-{source}-1"))
