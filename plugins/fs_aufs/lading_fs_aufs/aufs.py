"""The backend object."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, LayerDirectory, Whiteouts
from lading.linux import syscalls
from lading.snapshots import Row, TableBackend, inherit_root, refuse_labels, take_root
from lading_fs_aufs.merge import merge

#: Filesystems that cannot hold branches (aufs.5, "Branch Syntax"; btrfs has a backend of its own).
_NO_BRANCH = {0x61756673: "aufs", 0x794C7630: "overlay", 0xF15F: "ecryptfs", 0x9123683E: "btrfs"}
#: Bytes that mount(2) takes for options, with its own words and the final NUL taken off.
_ROOM = os.sysconf("SC_PAGE_SIZE") - 200
#: AUFS parses the options of one mount into a page of 48 bytes each: 84, a branch being one.
_MOST_OPTIONS = 64
#: Every so many snapshots of a chain there may be one branch with all that is below: AUFS takes 127
#: where it was built with the least that it can be (``CONFIG_AUFS_BRANCH_MAX_127``).
_HIGHEST, _STEP = 127, 100
#: What separates branches, and a branch from its permission.
_SEPARATORS = ",:="


class Aufs(TableBackend):
    """Snapshots as AUFS branches."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"layer-directory"})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.run = context.run
        self._serial = itertools.count()
        self._merging = threading.Lock()

    @hookimpl
    def probe(self) -> Probe:
        """The kernel has AUFS, and the data directory's filesystem can hold branches."""
        if "aufs" not in Path("/proc/filesystems").read_text().split():
            return Probe(
                usable=False,
                reason="this kernel has no AUFS",
                remedy="install a kernel with the aufs module and load it with: modprobe aufs",
            )
        kind = syscalls.filesystem_type(self.data)
        if kind in _NO_BRANCH:
            return Probe(
                usable=False,
                reason=f"{self.data} is on {_NO_BRANCH[kind]}, which cannot hold branches",
                remedy="put data-root on a filesystem such as ext4 or xfs",
            )
        for place in (self.data, self.run):
            if found := set(str(place)) & set(_SEPARATORS):
                return Probe(
                    usable=False,
                    reason=f'{place} has "{min(found)}" in it, which AUFS takes for a separator',
                    remedy="put data-root and exec-root where no name has a comma, colon or =",
                )
        return Probe(usable=True, version=_version(), details={"Branch limit": str(_HIGHEST)})

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make an empty branch."""
        refuse_labels(self.name, labels)

        def build(directory: Path, base: Path | None) -> None:
            top = directory / "fs"
            top.mkdir(mode=0o755)
            top.chmod(0o755)
            if base is not None:
                take_root(base / "fs", top)

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self.recipe(self.table.get(key))

    @hookimpl
    def layer_directory(self, key: str) -> LayerDirectory:
        """The branch is the layer."""
        return LayerDirectory(self.table.get(key).directory / "fs", Whiteouts.AUFS)

    @hookimpl
    def rebase(self, key: str, parent: str) -> None:
        """Only the table changes: branches do not know what they lie on."""
        row = self.table.get(key)
        self.table.reparent(key, parent)
        inherit_root(self.table.get(parent).directory / "fs", row.directory / "fs")

    def recipe(self, row: Row) -> Sequence[Mount]:
        """The branches, in as many mounts as the list needs."""
        own = str(row.directory / "fs")
        lowers = self._lowers(row)
        if row.snapshot.kind is Kind.VIEW and not lowers:
            return [Mount("bind", own, ("rbind", "ro"))]
        # "+wh": the whiteouts of a branch that is read-only count as well.
        branches = [f"{path}=ro+wh" for path in lowers]
        flags: tuple[str, ...] = ("ro",)
        if row.snapshot.kind is Kind.ACTIVE:
            branches.insert(0, f"{own}=rw")
            flags = ()
        first, rest = _split(branches)
        # AUFS makes this file anew and removes its name at once; two mounts that share a name may
        # meet, and the second then fails.
        table = f"xino={self.run}/{os.getpid()}-{next(self._serial)}.xino"
        # "dirperm1": a directory's mode is that of its uppermost branch, as users expect.
        # "noplink": what ties names of one file together across branches is in memory, and lost
        # when nobody runs auplink(8) before the end of a mount; without it, the names that are
        # made in a branch are tied there.
        options = (f"br:{':'.join(first)}", "dirperm1", "noplink", "dio", table)
        recipe = [Mount("aufs", "none", (*flags, *options))]
        while rest:
            first, rest = _split(rest)
            appended = tuple(f"append:{branch}" for branch in first)
            recipe.append(Mount("aufs", "none", ("remount", *flags, *appended)))
        return recipe

    def _lowers(self, row: Row) -> Sequence[Path]:
        """The branches below a snapshot; of a long chain, those at its end as one."""
        below = self.table.ancestors(row.snapshot.key)
        if len(below) < _HIGHEST:
            return [ancestor.directory / "fs" for ancestor in below]
        # Counted from the end, so that all snapshots on it share what is merged.
        kept = len(below) % _STEP
        whole = below[kept].directory / "whole"
        with self._merging:
            if not whole.exists():
                merge([ancestor.directory / "fs" for ancestor in reversed(below[kept:])], whole)
        return [*(ancestor.directory / "fs" for ancestor in below[:kept]), whole]


def _split(branches: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """As many branches as one mount(2) takes, and the others."""
    room, count = _ROOM, 0
    for branch in branches[:_MOST_OPTIONS]:
        room -= len(os.fsencode(branch)) + len(",append:")
        if room < 0 and count:
            break
        count += 1
    return branches[:count], branches[count:]


def _version() -> str:
    try:
        return Path("/sys/module/aufs/version").read_text().strip()
    except OSError:
        return os.uname().release
