"""The conformance kit itself: backends that break a rule are caught by the test of that rule."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lading.archive import Archives
from lading.hooks.common import Context, Mount
from lading.hooks.filesystem import Kind, LayerDirectory, Snapshot, Usage, Whiteouts
from lading.linux import mounts
from lading.monitor import Spawner
from lading.testing.filesystem import Case, FilesystemConformance
from lading.testing.volumes import loop_volume
from lading_fs_btrfs import Btrfs
from lading_fs_overlay import Overlay
from lading_fs_vfs import Vfs

pytestmark = pytest.mark.root


class WritableViews(Vfs):
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        recipe = super().view(key, parent, labels)
        return [Mount(m.type, m.source, ("rbind", "rw")) for m in recipe]


class SharedChildren(Vfs):
    """Children write into their parent."""

    def mounts(self, key: str) -> Sequence[Mount]:
        row = self.table.get(key)
        row = self.table.get(row.snapshot.parent) if row.snapshot.parent else row
        return [Mount("bind", str(row.directory / "fs"), ("rbind", "rw"))]

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        super().prepare(key, parent, labels)
        return self.mounts(key)


class CarelessRemoval(Vfs):
    def remove(self, key: str) -> None:
        row = self.table.get(key)
        row.children.clear()
        super().remove(key)


class QuietQuota(Vfs):
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        kept = {k: v for k, v in labels.items() if not k.startswith("lading.")}
        return super().prepare(key, parent, kept)


class Forgetful(Vfs):
    """Copies content and nothing else."""

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        recipe = super().prepare(key, "", labels)
        if parent:
            source = self.table.get(parent).directory / "fs"
            shutil.copytree(
                source, recipe[0].source, dirs_exist_ok=True, copy_function=shutil.copyfile
            )
        return recipe


class Disordered(Vfs):
    def walk(self) -> Iterator[Snapshot]:
        return reversed(list(super().walk()))


class LosesLabels(Vfs):
    def stat(self, key: str) -> Snapshot:
        found = super().stat(key)
        return Snapshot(found.key, found.parent, found.kind)


class HalfCommits(Vfs):
    def commit(self, key: str, name: str) -> None:
        if name in {s.key for s in self.walk() if s.kind is Kind.COMMITTED}:
            self.remove(key)
        super().commit(key, name)


class AtCommit(Vfs):
    """Spoils what was written."""

    def commit(self, key: str, name: str) -> None:
        for path in sorted((self.table.get(key).directory / "fs").rglob("*")):
            self.spoil(path)
        super().commit(key, name)

    def spoil(self, path: Path) -> None:
        raise NotImplementedError


class LosesTimes(AtCommit):
    def spoil(self, path: Path) -> None:
        os.utime(path, follow_symlinks=False)


class LosesAttributes(AtCommit):
    def spoil(self, path: Path) -> None:
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)


class LosesSpecialModes(AtCommit):
    def spoil(self, path: Path) -> None:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o777)


class LosesHardLinks(AtCommit):
    def spoil(self, path: Path) -> None:
        if path.is_file() and path.stat().st_nlink > 1:
            copy = path.with_name("copy")
            shutil.copy2(path, copy)
            copy.rename(path)


class LosesDevices(AtCommit):
    def spoil(self, path: Path) -> None:
        if path.is_block_device():
            path.unlink()


class LosesWhiteouts(Overlay):
    """What was deleted comes again."""

    def commit(self, key: str, name: str) -> None:
        for path in (self.table.get(key).directory / "fs").rglob("*"):
            if path.is_char_device():
                path.unlink()
        super().commit(key, name)


class LosesOpaque(Overlay):
    """What was in a directory shows through the one made in its place."""

    def commit(self, key: str, name: str) -> None:
        for path in (self.table.get(key).directory / "fs").rglob("*"):
            if path.is_dir() and "trusted.overlay.opaque" in os.listxattr(path):
                os.removexattr(path, "trusted.overlay.opaque")
        super().commit(key, name)


class ShowsMarks(Overlay):
    """Gives the uppermost layer for the whole."""

    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        super().view(key, parent, labels)
        layer = self.table.get(parent).directory if parent else self.table.get(key).directory
        return [Mount("bind", str(layer / "fs"), ("rbind", "ro"))]


class WrongWhiteouts(Overlay):
    def layer_directory(self, key: str) -> LayerDirectory:
        return LayerDirectory(super().layer_directory(key).path, Whiteouts.AUFS)


class ForgetsParent(Overlay):
    def rebase(self, key: str, parent: str) -> None:
        pass


class Overlooks(Btrfs):
    """Names the files that changed, not those that are gone."""

    def changed_paths(self, key: str) -> Iterator[bytes]:
        top = self.table.get(key).directory / "fs"
        return (
            p for p in super().changed_paths(key) if os.path.lexists(os.fsencode(top) + b"/" + p)
        )


class BoundlessQuota(Vfs):
    """Says that it can, and does not."""

    capabilities = frozenset({"quota-size", "quota-inodes"})

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        return super().prepare(key, parent, {})


class ClaimsLayers(Vfs):
    capabilities = frozenset({"remote-layers"})

    def prepare_layer(self, key: str, name: str, parent: str, source: object) -> None:
        return None


class MountsItself(Vfs):
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        recipe = super().view(key, parent, labels)
        mounts.mount_recipe(recipe, self.table.get(key).directory / "fs")
        return recipe


class AnyKey(Vfs):
    """Makes names of everything."""

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        return super().prepare(re.sub("[^a-z]", "_", key)[:100] or "_", parent, labels)


class HalfAtKill(Vfs):
    """Lists a snapshot before it has its content."""

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        recipe = super().prepare(key, "", labels)
        if parent:
            # Tells the other process to kill this one now.
            os.write(1, b".")
            time.sleep(30)
            shutil.copytree(
                self.table.get(parent).directory / "fs", recipe[0].source, dirs_exist_ok=True
            )
        return recipe


class Amnesiac(Vfs):
    """Keeps what it knows in memory."""

    def __init__(self, context: Context) -> None:
        place = context.data / str(time.monotonic_ns())
        place.mkdir()
        super().__init__(dataclasses.replace(context, data=place))


class NoUsage(Vfs):
    def usage(self, key: str) -> Usage:
        return Usage(0, 0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    while subprocess.run(["umount", "-R", "-q", *_mounted(tmp_path)], check=False).returncode == 0:
        pass


def _mounted(top: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{top}/")][-1:]


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (WritableViews, "a_view_is_read_only"),
        (SharedChildren, "a_child_does_not_change_its_parent"),
        (SharedChildren, "siblings_do_not_see_each_other"),
        (CarelessRemoval, "remove_refuses_a_parent"),
        (QuietQuota, "quota_without_capability_is_refused"),
        (Forgetful, "writing_keeps_metadata_of_what_was_below"),
        (Forgetful, "the_roots_own_metadata_are_inherited"),
        (Disordered, "walk_yields_parents_first"),
        (LosesLabels, "stat_and_walk_tell_kind_parent_and_labels"),
        (HalfCommits, "commit_to_a_taken_name_changes_nothing"),
        (LosesTimes, "times_of_files_and_directories_are_kept"),
        (LosesAttributes, "capabilities_of_files_are_kept"),
        (LosesSpecialModes, "special_modes_and_owners_are_kept"),
        (LosesHardLinks, "hard_links_stay_one_file"),
        (LosesHardLinks, "a_new_hard_link_to_a_file_from_below"),
        (LosesDevices, "every_kind_of_file"),
        (Forgetful, "a_child_shows_exactly_its_parent"),
        (Forgetful, "making_a_file_keeps_metadata_of_the_directory_from_below"),
        (LosesWhiteouts, "a_deleted_file_is_gone_and_can_come_again"),
        (LosesWhiteouts, "renaming_what_is_below"),
        (LosesWhiteouts, "renames_in_one_snapshot_after_the_other"),
        (LosesWhiteouts, "moving_a_directory_from_below"),
        (LosesOpaque, "a_directory_made_anew_is_empty"),
        (ShowsMarks, "listing_shows_each_name_once"),
        (BoundlessQuota, "a_size_limit_counts_what_the_snapshot_writes_itself"),
        (BoundlessQuota, "an_inode_limit_counts_what_the_snapshot_makes_itself"),
        (BoundlessQuota, "a_limit_that_is_no_number_is_refused"),
        (ClaimsLayers, "a_layer_is_there_or_can_be_unpacked"),
        (MountsItself, "hooks_mount_nothing"),
        (AnyKey, "bad_keys_are_refused"),
        (HalfAtKill, "a_kill_leaves_snapshots_whole_or_absent"),
        (Amnesiac, "snapshots_outlive_the_object"),
        (ForgetsParent, "rebase_refuses_a_second_parent"),
        (NoUsage, "usage_counts_what_is_the_snapshots_own"),
    ],
)
def test_a_broken_backend_is_caught(broken: type[Any], rule: str, place: Path) -> None:
    test: Any = getattr(FilesystemConformance(), f"test_{rule}")
    case = Case.make(broken, place, "the rule", {})
    with pytest.raises(AssertionError, match=r"(?s)rule: the rule"):
        test(case)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (WrongWhiteouts, "layer_directory_packs_to_the_same_tree"),
        (ForgetsParent, "unpacking_into_the_layer_directory"),
    ],
)
def test_layers_of_a_broken_backend_are_caught(
    broken: type[Any], rule: str, place: Path, spawned: Archives
) -> None:
    test: Any = getattr(FilesystemConformance(), f"test_{rule}")
    # What unpacking meets tells more than the rule would.
    with pytest.raises((AssertionError, OSError)):
        test(Case.make(broken, place, "the rule", {}), spawned)


@pytest.fixture(scope="module")
def spawned() -> Iterator[Archives]:
    spawner = Spawner.launch(preload=["lading.archive.tasks"])
    yield Archives(spawner)
    spawner.close()


def test_changes_that_are_overlooked_are_caught(tmp_path: Path) -> None:
    with loop_volume("btrfs", tmp_path) as volume:
        case = Case.make(Overlooks, volume, "the rule", {})
        with pytest.raises(AssertionError, match="rule: the rule"):
            FilesystemConformance().test_changed_paths_miss_nothing(case)


def test_every_test_of_the_kit_states_its_rule() -> None:
    missing = [
        name
        for name in dir(FilesystemConformance)
        if name.startswith("test_") and not getattr(FilesystemConformance, name).__doc__
    ]
    assert missing == []
