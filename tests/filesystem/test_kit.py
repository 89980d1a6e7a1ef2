"""The conformance kit itself: backends that break a rule are caught by the test of that rule."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lading.hooks.common import Mount
from lading.hooks.filesystem import Kind, Snapshot
from lading.testing.filesystem import Case, FilesystemConformance
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
        return reversed(list(super().walk()))  # type: ignore[return-value]


class LosesLabels(Vfs):
    def stat(self, key: str) -> Snapshot:
        found = super().stat(key)
        return Snapshot(found.key, found.parent, found.kind)


class HalfCommits(Vfs):
    def commit(self, key: str, name: str) -> None:
        if name in {s.key for s in self.walk() if s.kind is Kind.COMMITTED}:
            self.remove(key)
        super().commit(key, name)


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
    ],
)
def test_a_broken_backend_is_caught(broken: type[Vfs], rule: str, tmp_path: Path) -> None:
    test: Any = getattr(FilesystemConformance(), f"test_{rule}")
    case = Case.make(broken, tmp_path, "the rule", {})
    with pytest.raises(AssertionError, match=r"expected .* got .*rule: the rule"):
        test(case)


def test_every_test_of_the_kit_states_its_rule() -> None:
    missing = [
        name
        for name in dir(FilesystemConformance)
        if name.startswith("test_") and not getattr(FilesystemConformance, name).__doc__
    ]
    assert missing == []
