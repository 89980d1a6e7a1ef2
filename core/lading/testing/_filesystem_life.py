"""Kit, part one: the life cycle of snapshots, errors, durability."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lading.errors import Conflict, InUse, Invalid, NotFound, Unsupported
from lading.hooks.filesystem import Kind, Snapshot
from lading.testing._filesystem_case import Case, KitBase, put
from lading.testing.waiting import holds


class LifeCycle(KitBase):
    """What each hook does and refuses."""

    def test_prepare_without_parent_is_empty(self, case: Case) -> None:
        """parent: the name of a committed snapshot, or "" for an empty one."""
        with case.active("a") as top:
            case.expect([], os.listdir(top))

    def test_prepare_is_writable(self, case: Case) -> None:
        """prepare (writable)."""
        with case.active("a") as top:
            put(top / "f", "text")
        with case.mounted(case.backend.mounts(key="a")) as top:
            case.expect("text", (top / "f").read_text())

    def test_prepare_shows_the_parent(self, case: Case) -> None:
        """prepare: make a writable snapshot on top of the parent."""
        case.commit("base", "", lambda top: put(top / "d/f", "below"))
        with case.active("a", "base") as top:
            case.expect("below", (top / "d/f").read_text())

    def test_what_was_written_is_there_when_mounted_again(self, case: Case) -> None:
        """mounts: return the recipe again; a container may be started any number of times."""
        case.commit("base", "", lambda top: put(top / "f", "below"))
        with case.active("a", "base") as top:
            put(top / "f", "above")
        for _ in range(2):
            with case.mounted(case.reopened().mounts(key="a")) as top:
                case.expect("above", (top / "f").read_text())

    def test_prepare_refuses_a_key_in_use(self, case: Case) -> None:
        """Conflict where a key or name exists already."""
        case.commit("base", "", lambda top: None)
        case.backend.prepare(key="a", parent="", labels={})
        for key in ("a", "base"):
            case.refused(Conflict, _prepare(case, key))

    def test_prepare_refuses_an_unknown_parent(self, case: Case) -> None:
        """NotFound for an unknown key, name or parent; nothing is left behind."""
        case.refused(NotFound, lambda: case.backend.prepare(key="a", parent="missing", labels={}))
        case.expect([], list(case.backend.walk()))

    def test_prepare_refuses_an_active_parent(self, case: Case) -> None:
        """parent: the name of a committed snapshot."""
        case.backend.prepare(key="a", parent="", labels={})
        case.refused(NotFound, lambda: case.backend.prepare(key="b", parent="a", labels={}))

    def test_quota_without_capability_is_refused(self, case: Case) -> None:
        """A backend without the capability raises Unsupported for lading.size, lading.inodes."""
        for label, capability in (("size", "quota-size"), ("inodes", "quota-inodes")):
            if capability not in case.backend.capabilities:
                case.refused(Unsupported, _prepare(case, "a", {f"lading.{label}": "1000000"}))
        case.expect([], list(case.backend.walk()))

    def test_bad_keys_are_refused(self, case: Case) -> None:
        """Keys and names share one space of strings, [A-Za-z0-9_.:-]{1,200}."""
        for key in ("", "a/b", "../x", "a b", "x" * 201):
            case.refused(Invalid, _prepare(case, key))

    def test_keys_of_the_whole_alphabet_are_taken(self, case: Case) -> None:
        """Keys and names share one space of strings; a backend maps them to file names."""
        for key in ("..", ".", "a" * 200, "sha256:" + "0" * 64, "A-b_c.d:e"):
            with case.active(key) as top:
                put(top / "f", key)
            with case.mounted(case.backend.mounts(key=key)) as top:
                case.expect(key, (top / "f").read_text())

    def test_a_view_is_read_only(self, case: Case) -> None:
        """view (read-only)."""
        case.commit("base", "", lambda top: put(top / "f"))
        with case.seen("base") as top:
            case.refused(OSError, lambda: put(top / "f", "changed"))
            case.refused(OSError, lambda: put(top / "new"))

    def test_a_view_of_nothing_is_empty(self, case: Case) -> None:
        """parent: "" for an empty one; view as prepare otherwise."""
        with case.seen("") as top:
            case.expect([], os.listdir(top))

    def test_commit_frees_the_key(self, case: Case) -> None:
        """commit: key is free afterwards."""
        case.backend.prepare(key="a", parent="", labels={})
        case.backend.commit(key="a", name="base")
        case.refused(NotFound, lambda: case.backend.mounts(key="a"))
        case.backend.prepare(key="a", parent="base", labels={})

    def test_commit_to_a_taken_name_changes_nothing(self, case: Case) -> None:
        """commit to an existing name leaves the active snapshot as it was."""
        case.commit("base", "", lambda top: put(top / "f", "first"))
        with case.active("a") as top:
            put(top / "f", "second")
        case.refused(Conflict, lambda: case.backend.commit(key="a", name="base"))
        case.expect(Kind.ACTIVE, case.backend.stat(key="a").kind)
        with case.mounted(case.backend.mounts(key="a")) as top:
            case.expect("second", (top / "f").read_text())
        with case.seen("base") as top:
            case.expect("first", (top / "f").read_text())

    def test_commit_refuses_a_view(self, case: Case) -> None:
        """commit: Conflict (name exists, or key is a view)."""
        case.backend.view(key="v", parent="", labels={})
        case.refused(Conflict, lambda: case.backend.commit(key="v", name="base"))

    def test_unknown_keys_are_not_found(self, case: Case) -> None:
        """NotFound for an unknown key, name or parent."""
        backend = case.backend
        case.refused(NotFound, lambda: backend.commit(key="x", name="y"))
        case.refused(NotFound, lambda: backend.mounts(key="x"))
        case.refused(NotFound, lambda: backend.stat(key="x"))
        case.refused(NotFound, lambda: backend.remove(key="x"))
        case.refused(NotFound, lambda: backend.usage(key="x"))

    def test_a_child_does_not_change_its_parent(self, case: Case) -> None:
        """A committed snapshot stays what it was."""
        case.commit("base", "", lambda top: put(top / "d/f", "below"))
        before = case.tree("base")

        def change(top: Path) -> None:
            put(top / "d/f", "above", 0o600)
            put(top / "d/new")

        case.commit("above", "base", change)
        case.expect(before, case.tree("base"))

    def test_siblings_do_not_see_each_other(self, case: Case) -> None:
        """Several snapshots may stand on one parent."""
        case.commit("base", "", lambda top: put(top / "f"))
        with case.active("a", "base") as first, case.active("b", "base") as second:
            put(first / "mine")
            (first / "f").unlink()
            case.expect(["f"], os.listdir(second))

    def test_a_recipe_can_be_mounted_more_than_once(self, case: Case) -> None:
        """Several callers may mount the same recipe of a view."""
        case.commit("one", "", lambda top: put(top / "f", "text"))
        case.commit("base", "one", lambda top: put(top / "g"))
        recipe = case.backend.view(key="v", parent="base", labels={})
        with case.mounted(recipe) as first, case.mounted(recipe) as second:
            case.expect((first / "f").read_text(), (second / "f").read_text())

    def test_hooks_mount_nothing(self, case: Case) -> None:
        """The backend mounts nothing in the caller's namespaces; it returns data."""
        case.backend.prepare(key="a", parent="", labels={})
        case.backend.commit(key="a", name="base")
        case.backend.view(key="v", parent="base", labels={})
        case.backend.usage(key="base")
        case.backend.remove(key="v")
        # Others on this host may mount meanwhile, at places of theirs.
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        case.expect([], [line for line in table if str(case.places.parent) in line])

    def test_stat_and_walk_tell_kind_parent_and_labels(self, case: Case) -> None:
        """stat: what walk would say of one key; labels are those given at prepare."""
        case.commit("base", "", lambda top: None)
        case.backend.prepare(key="a", parent="base", labels={"user": "me"})
        case.backend.view(key="v", parent="base", labels={})
        wanted = {
            "base": Snapshot("base", "", Kind.COMMITTED),
            "a": Snapshot("a", "base", Kind.ACTIVE, {"user": "me"}),
            "v": Snapshot("v", "base", Kind.VIEW),
        }
        case.expect(wanted, {s.key: s for s in case.backend.walk()})
        case.expect(wanted, {key: case.backend.stat(key=key) for key in wanted})

    def test_walk_yields_parents_first(self, case: Case) -> None:
        """walk: yield every snapshot, parents before children."""
        parent = ""
        for name in ("z", "m", "a", "k"):
            parent = case.commit(name, parent, lambda top: None)
        case.expect(["z", "m", "a", "k"], [s.key for s in case.reopened().walk()])

    def test_remove_of_any_kind(self, case: Case) -> None:
        """remove: remove a snapshot of any kind."""
        case.commit("base", "", lambda top: put(top / "d/f", mode=0o400))
        case.backend.prepare(key="a", parent="", labels={})
        case.backend.view(key="v", parent="", labels={})
        for key in ("a", "v", "base"):
            case.backend.remove(key=key)
        case.expect([], list(case.backend.walk()))

    def test_remove_refuses_a_parent(self, case: Case) -> None:
        """InUse for remove of a parent that has children."""
        case.commit("base", "", lambda top: put(top / "f"))
        case.backend.prepare(key="a", parent="base", labels={})
        case.refused(InUse, lambda: case.backend.remove(key="base"))
        case.refused(InUse, lambda: case.reopened().remove(key="base"))
        case.backend.remove(key="a")
        case.backend.remove(key="base")

    def test_usage_counts_what_is_the_snapshots_own(self, case: Case) -> None:
        """usage: space that a snapshot takes by itself, bytes on disk and inodes."""
        case.commit("base", "", lambda top: (top / "big").write_bytes(os.urandom(1 << 20)))
        case.commit("above", "base", lambda top: put(top / "small", "x" * 10))
        usage = case.backend.usage(key="base")
        assert usage.size >= 1 << 20, f"expected at least 1 MiB, got {usage}; rule: {case.rule}"
        assert usage.inodes >= 1, f"expected an inode, got {usage}; rule: {case.rule}"

    def test_snapshots_outlive_the_object(self, case: Case) -> None:
        """context.data is a directory that is the backend's own and persists."""
        case.commit("base", "", lambda top: put(top / "f", "kept"))
        case.backend.prepare(key="a", parent="base", labels={"l": "1"})
        again = case.reopened()
        case.expect(list(case.backend.walk()), list(again.walk()))
        with case.mounted(again.mounts(key="a")) as top:
            case.expect("kept", (top / "f").read_text())

    def test_many_threads_at_once(self, case: Case) -> None:
        """All hooks may be called from many threads at once, for different keys."""
        case.commit("base", "", lambda top: put(top / "f"))

        def live(number: int) -> None:
            case.backend.prepare(key=f"a{number}", parent="base", labels={})
            case.backend.commit(key=f"a{number}", name=f"c{number}")
            case.backend.prepare(key=f"b{number}", parent=f"c{number}", labels={})
            case.backend.remove(key=f"b{number}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(live, range(24)))
        found = sorted(s.key for s in case.reopened().walk())
        case.expect(sorted(["base", *(f"c{n}" for n in range(24))]), found)

    def test_a_kill_leaves_snapshots_whole_or_absent(self, case: Case) -> None:
        """After a kill at any instant each snapshot is either whole or absent from walk."""
        case.commit("base", "", lambda top: put(top / "f", "text"))
        for rounds in (1, 2, 4, 7):
            _killed_after(case, rounds)
            # Where a service does the work, it may end a call after the caller's death.
            holds(lambda: _swept(case) == ["base"], 0.05)
            case.expect(["base"], _swept(case))


def _swept(case: Case) -> list[str]:
    """Check that what a killed process has left is whole, remove it, and list what is there."""
    again = case.reopened()
    for snapshot in list(again.walk()):
        if snapshot.kind is Kind.ACTIVE:
            with case.mounted(again.mounts(key=snapshot.key)) as top:
                whole = os.path.exists(top / "f") and (top / "f").read_text()
                case.expect("text", whole)
        if snapshot.key != "base":
            again.remove(key=snapshot.key)
    return [s.key for s in again.walk()]


def _prepare(case: Case, key: str, labels: Mapping[str, str] | None = None) -> Callable[[], object]:
    return lambda: case.backend.prepare(key=key, parent="", labels=labels or {})


#: Run by another interpreter, whose standard input says what to make the backend from.
_MAKING = """
import os, pickle, sys
factory, context = pickle.load(sys.stdin.buffer)
backend = factory(context)
number = 0
while True:
    number += 1
    key = f"k{os.getpid()}-{number}"
    backend.prepare(key=key, parent="base", labels={})
    if number % 3:
        backend.remove(key=key)
    os.write(1, b".")
"""


def _killed_after(case: Case, rounds: int) -> None:
    """Let another process make and remove snapshots, and kill it after some rounds.

    Not a fork of this one: a backend may have threads, which do not outlive that.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _MAKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            pickle.dump((case.factory, case.context), other.stdin)
            other.stdin.close()
            made = other.stdout.read(rounds)
        finally:
            other.kill()
    assert len(made) == rounds, "the other process ended before it was killed"
