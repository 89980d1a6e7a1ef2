"""Kit, part three: snapshots as layers, written as tar and unpacked again."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

from lading.archive import Archives, Hint, Root
from lading.errors import Conflict
from lading.hooks.filesystem import (
    Changes,
    Kind,
    LayerDirectories,
    LayerSource,
    RemoteLayers,
)
from lading.testing._filesystem_case import Case, KitBase, describe, put

OLD = 1_000_000_000


def base_tree(top: Path) -> None:
    """A small tree to change."""
    for name in ("kept", "deleted", "changed", "dir/a", "dir/b", "swapped/inside", "opaque/old"):
        os.utime(put(top / name, name), (OLD, OLD))
    os.link(top / "kept", top / "kept-too")
    (top / "link").symlink_to("kept")


def guarded_tree(top: Path) -> None:
    """The same, with a root directory that has a mode of its own."""
    base_tree(top)
    top.chmod(0o711)


def change_tree(top: Path) -> None:
    """Every way to change one."""
    put(top / "changed", "now longer")
    put(top / "new/file", "new")
    os.link(top / "new/file", top / "new/linked")
    (top / "new/file").chmod(0o4755)
    (top / "deleted").unlink()
    (top / "dir/a").unlink()
    shutil.rmtree(top / "swapped")
    put(top / "swapped", "a file now")
    shutil.rmtree(top / "opaque")
    put(top / "opaque/new")
    (top / "link").unlink()
    (top / "link").symlink_to("changed")
    (top / "dir/b").chmod(0o600)
    capability = "0100000200040000000000000000000000000000"
    os.setxattr(top / "dir/b", "security.capability", bytes.fromhex(capability))
    os.mkfifo(top / "pipe")


class Layers(KitBase):
    """Differences, and the optional powers around layers."""

    def _through_tar(
        self, case: Case, archives: Archives, known: Callable[[str], Hint] | None
    ) -> None:
        """Pack what "above" changes against "base", unpack it on "base", compare."""
        case.commit("base", "", base_tree)
        with case.active("above", "base") as top:
            change_tree(top)
        backend = case.backend
        lower = backend.view(key="lower", parent="base", labels={})
        tar = case.places / "layer.tar"
        with open(tar, "wb") as out:
            hint = known("above") if known else None
            packed = archives.diff(lower, backend.mounts(key="above"), out.fileno(), hint)
        case.expect(tar.stat().st_size, packed.length)
        recipe = backend.prepare(key="copy", parent="base", labels={})
        with open(tar, "rb") as stream:
            applied = archives.apply(Root(recipe), stream.fileno())
        case.expect(packed.digest, applied.diff_id)
        backend.commit(key="above", name="c-above")
        backend.commit(key="copy", name="c-copy")
        case.expect(case.tree("c-above"), case.tree("c-copy"))

    def test_difference_unpacks_to_the_same_tree(self, case: Case, archives: Archives) -> None:
        """OCI tar layers are the interchange; the walking differ serves any backend."""
        self._through_tar(case, archives, None)

    def test_layer_directory_packs_to_the_same_tree(self, case: Case, archives: Archives) -> None:
        """layer-directory: the core reads the differences of a container from it alone."""
        case.can("layer-directory")
        layers = cast(LayerDirectories, case.backend)
        self._through_tar(case, archives, lambda key: layers.layer_directory(key=key))

    def test_unpacking_into_the_layer_directory(self, case: Case, archives: Archives) -> None:
        """layer-directory: the core unpacks layers straight into it, then gives the parent."""
        case.can("layer-directory")
        layers = cast(LayerDirectories, case.backend)
        case.commit("base", "", guarded_tree)
        case.commit("above", "base", change_tree)
        backend = case.backend
        lower = backend.view(key="lower", parent="base", labels={})
        upper = backend.view(key="upper", parent="above", labels={})
        tar = case.places / "layer.tar"
        with open(tar, "wb") as out:
            archives.diff(lower, upper, out.fileno())
        backend.prepare(key="copy", parent="", labels={})
        with open(tar, "rb") as stream:
            applied = archives.apply_directory(
                layers.layer_directory(key="copy"), stream.fileno(), parent=True
            )
        assert applied is not None, f"the layer needed its parent; rule: {case.rule}"
        layers.rebase(key="copy", parent="base")
        backend.commit(key="copy", name="c-copy")
        case.expect(case.tree("above"), case.tree("c-copy"))
        with case.seen("c-copy") as top:
            case.expect(0o711, stat.S_IMODE(top.stat().st_mode))

    def test_a_directory_below_a_snapshot_is_never_written(self, case: Case) -> None:
        """lading.base: absolute directory that the snapshot lies on and never writes to."""
        case.can("base-directory")
        base = case.places.parent / "anybodys"
        put(base / "kept", "theirs")
        put(base / "gone")
        base.chmod(0o711)
        before = describe(base)
        with case.active("above", **{"lading.base": str(base)}) as top:
            case.expect("theirs", (top / "kept").read_text())
            case.expect(0o711, stat.S_IMODE(top.stat().st_mode))
            put(top / "kept", "ours")
            (top / "gone").unlink()
        case.expect(before, describe(base))
        with case.mounted(case.reopened().mounts(key="above")) as top:
            case.expect("ours", (top / "kept").read_text())
            case.expect(False, (top / "gone").exists())
        case.backend.remove(key="above")
        case.expect(before, describe(base))

    def test_rebase_refuses_a_second_parent(self, case: Case) -> None:
        """rebase: Conflict (it has a parent already)."""
        case.can("layer-directory")
        layers = cast(LayerDirectories, case.backend)
        case.commit("base", "", base_tree)
        case.backend.prepare(key="a", parent="base", labels={})
        case.refused(Conflict, lambda: layers.rebase(key="a", parent="base"))

    def test_changed_paths_pack_to_the_same_tree(self, case: Case, archives: Archives) -> None:
        """changes: the core looks for the differences of a container at these paths alone."""
        case.can("changes")
        changes = cast(Changes, case.backend)
        self._through_tar(case, archives, lambda key: list(changes.changed_paths(key=key)))

    def test_changed_paths_miss_nothing(self, case: Case) -> None:
        """changes: yield a superset of the changed paths, relative, parents first."""
        case.can("changes")
        case.commit("base", "", base_tree)
        with case.active("above", "base") as top:
            change_tree(top)
        found = set(cast(Changes, case.backend).changed_paths(key="above"))
        wanted = {b"changed", b"new", b"new/file", b"deleted", b"dir/a", b"dir/b", b"pipe"}
        case.expect(set(), wanted - found)

    def test_a_layer_is_there_or_can_be_unpacked(self, case: Case) -> None:
        """remote-layers: None: name is there on parent now, and key is free; else as prepare."""
        case.can("remote-layers")
        case.commit("base", "", base_tree)
        source = LayerSource(
            "registry.invalid/none:latest", f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
        )
        backend, name = case.backend, f"sha256:{'3' * 64}"
        recipe = cast(RemoteLayers, backend).prepare_layer(
            key="a", name=name, parent="base", source=source
        )
        if recipe is None:
            found = [s for s in backend.walk() if s.key in ("a", name)]
            case.expect(
                [(name, "base", Kind.COMMITTED)], [(s.key, s.parent, s.kind) for s in found]
            )
            return
        with case.mounted(recipe) as top:
            case.expect("kept", (top / "kept").read_text())
            put(top / "new", "new")
        backend.commit(key="a", name=name)
        case.expect(["base", name], [s.key for s in backend.walk()])
        with case.seen(name) as top:
            case.expect("new", (top / "new").read_text())
