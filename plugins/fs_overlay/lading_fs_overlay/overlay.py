"""The backend object."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.errors import Invalid, NotFound
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, LayerDirectory, Whiteouts
from lading.linux import syscalls
from lading.snapshots import (
    BASE,
    INODES,
    PATH,
    SIZE,
    Row,
    TableBackend,
    inherit_root,
    limit,
    refuse_labels,
    take_root,
)
from lading_fs_overlay import quota

#: Filesystems that cannot hold an upper directory (overlayfs.rst, "Upper and lower").
_NO_UPPER = {0x794C7630: "overlay", 0x6969: "nfs", 0x61756673: "aufs", 0x65735546: "fuse"}


class Overlay(TableBackend):
    """Snapshots as overlayfs layers."""

    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"idmap", "layer-directory", "upper-path", "base-directory", "quota-size", "quota-inodes"}
    )

    defaults: ClassVar[Mapping[str, bool]] = {"volatile": False, "userxattr": False}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.volatile: bool = self.options["volatile"]
        self.userxattr: bool = self.options["userxattr"]

    @hookimpl
    def probe(self) -> Probe:
        """The kernel has overlayfs, and the data directory's filesystem can hold upper ones."""
        filesystems = Path("/proc/filesystems").read_text().split()
        if "overlay" not in filesystems:
            return Probe(
                usable=False,
                reason="this kernel has no overlayfs",
                remedy="load the module with: modprobe overlay",
            )
        kind = syscalls.filesystem_type(self.data)
        if kind in _NO_UPPER:
            return Probe(
                usable=False,
                reason=f"{self.data} is on {_NO_UPPER[kind]}, which cannot hold upper directories",
                remedy="put data-root on a filesystem such as ext4, xfs or btrfs",
            )
        if self.userxattr and not _takes_user_attributes(self.data):
            return Probe(
                usable=False,
                reason=f"the filesystem of {self.data} has no user.* extended attributes",
                remedy='turn the option "userxattr" off, or use ext4, xfs or btrfs',
            )
        return Probe(
            usable=True,
            version=os.uname().release,
            details={
                "Project quotas": str(quota.available(self.data)).lower(),
                "Volatile": str(self.volatile).lower(),
                "userxattr": str(self.userxattr).lower(),
            },
        )

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make empty upper and work directories."""
        refuse_labels(self.name, labels, SIZE, INODES, PATH, BASE)
        place = labels.get(PATH)
        size, inodes = limit(labels, SIZE), limit(labels, INODES)
        foreign = _foreign_base(labels, parent)

        def build(directory: Path, base: Path | None) -> None:
            if place:
                _elsewhere(directory, Path(place), key)
            else:
                for name in ("fs", "work"):
                    (directory / name).mkdir(mode=0o755)
            if size or inodes:
                _limit(directory, size, inodes)
            below = foreign or (base / "fs" if base else None)
            if below is not None:
                take_root(below, directory / "fs")

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self.recipe(self.table.get(key))

    @hookimpl
    def commit(self, key: str, name: str) -> None:
        """Sync, and change the kind; the work directory goes."""
        row = self.table.get(key)
        self.table.commit(key, name, durable=not self.volatile)
        shutil.rmtree(row.directory / "work", ignore_errors=True)

    @hookimpl
    def mounts(self, key: str) -> Sequence[Mount]:
        """The recipe again."""
        if self.volatile:
            # The kernel's mark of an unsynced mount: it would refuse the next one.
            marked = self.table.get(key).directory / "work/work/incompat"
            shutil.rmtree(marked, ignore_errors=True)
        return super().mounts(key)

    @hookimpl
    def remove(self, key: str) -> None:
        """Remove the directories, also one that was placed elsewhere."""
        row = self.table.get(key)
        place = row.snapshot.labels.get(PATH)
        self.table.remove(key)
        if place:
            shutil.rmtree(Path(place) / f"lading-{key}", ignore_errors=True)

    @hookimpl
    def layer_directory(self, key: str) -> LayerDirectory:
        """``fs`` is the layer."""
        form = Whiteouts.OVERLAY_USER if self.userxattr else Whiteouts.OVERLAY
        return LayerDirectory(self.table.get(key).directory / "fs", form)

    @hookimpl
    def rebase(self, key: str, parent: str) -> None:
        """Only the table changes: layers do not know what they lie on."""
        row = self.table.get(key)
        self.table.reparent(key, parent)
        inherit_root(self.table.get(parent).directory / "fs", row.directory / "fs")

    def recipe(self, row: Row) -> Sequence[Mount]:
        """The stack of layers, or one directory where that is all."""
        lowers = [str(below.directory / "fs") for below in self.table.ancestors(row.snapshot.key)]
        if base := row.snapshot.labels.get(BASE):
            lowers = [base]
        own = str(row.directory / "fs")
        writable = row.snapshot.kind is Kind.ACTIVE
        if not lowers:
            # overlayfs needs a lower directory; without a parent the layer is the whole tree.
            return [Mount("bind", own, ("rbind", "rw" if writable else "ro"))]
        if not writable and len(lowers) == 1:
            return [Mount("bind", lowers[0], ("rbind", "ro"))]
        options = [f"lowerdir={':'.join(lowers)}"]
        if writable:
            options += [f"upperdir={own}", f"workdir={row.directory / 'work'}"]
            options += ["volatile"] * self.volatile
        else:
            options.append("ro")
        # Layers are read by others too: nothing that only this very stack explains.
        options += ["userxattr"] if self.userxattr else ["redirect_dir=off", "metacopy=off"]
        return [Mount("overlay", "overlay", tuple(options))]


def _foreign_base(labels: Mapping[str, str], parent: str) -> Path | None:
    """The directory that a snapshot is to lie on. Raises Invalid."""
    text = labels.get(BASE)
    if text is None:
        return None
    if parent or not os.path.isabs(text) or set(text) & set(":,\\"):
        raise Invalid(f'bad {BASE}="{text}"', hint="an absolute path, and no parent")
    if not os.path.isdir(text):
        raise NotFound(f'no directory "{text}"')
    return Path(text)


def _takes_user_attributes(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.lading.probe", b"")
        os.removexattr(directory, "user.lading.probe")
    except OSError:
        return False
    return True


def _limit(directory: Path, size: int, inodes: int) -> None:
    """Limit what is written into a snapshot."""
    project = quota.project_of(directory / "fs")
    quota.limit(directory / "fs", project, size, inodes)
    for name in ("fs", "work"):
        # overlayfs makes files in the work directory and renames them into the other, which the
        # kernel refuses between projects.
        quota.join(directory / name, project)


def _elsewhere(directory: Path, place: Path, key: str) -> None:
    """Put the writable layer under a directory of the user's choice."""
    target = place / f"lading-{key}"
    # The key is free, so this can only be what a crash has left.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700, parents=True)
    for name in ("fs", "work"):
        (target / name).mkdir(mode=0o755)
        (directory / name).symlink_to(target / name)
