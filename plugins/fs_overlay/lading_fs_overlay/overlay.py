"""The backend object."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lading.errors import Invalid, NotFound
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Kind, LayerDirectory, Snapshot, Usage, Whiteouts
from lading.linux import syscalls
from lading.snapshots import Row, SnapshotTable, tree_usage
from lading_fs_overlay import quota

#: Filesystems that cannot hold an upper directory (overlayfs.rst, "Upper and lower").
_NO_UPPER = {0x794C7630: "overlay", 0x6969: "nfs", 0x61756673: "aufs", 0x65735546: "fuse"}
_PATH_LABEL = "lading.path"
_BASE_LABEL = "lading.base"
_QUOTA_LABELS = ("lading.size", "lading.inodes")


class Overlay:
    """Snapshots as overlayfs layers."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"idmap", "layer-directory", "upper-path", "base-directory", "quota-size", "quota-inodes"}
    )

    def __init__(self, context: Context) -> None:
        self.data = context.data
        self.volatile = bool(context.options.get("volatile"))
        self.userxattr = bool(context.options.get("userxattr"))
        self.table = SnapshotTable(context.data)

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
        kind = _filesystem_type(self.data)
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
        place = labels.get(_PATH_LABEL)
        size, inodes = (_number(labels, name) for name in _QUOTA_LABELS)
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
                _take_root(below, directory / "fs")

        self.table.add(key, parent, Kind.ACTIVE, labels, build)
        return self._recipe(self.table.get(key))

    @hookimpl
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """A name for the parent's own layers; a view of nothing has an empty directory."""
        self.table.add(
            key, parent, Kind.VIEW, labels, lambda made, base: (made / "fs").mkdir(mode=0o755)
        )
        return self._recipe(self.table.get(key))

    @hookimpl
    def commit(self, key: str, name: str) -> None:
        """Sync, and change the kind; the work directory goes."""
        row = self.table.get(key)
        self.table.commit(key, name, durable=not self.volatile)
        shutil.rmtree(row.directory / "work", ignore_errors=True)

    @hookimpl
    def mounts(self, key: str) -> Sequence[Mount]:
        """The recipe again."""
        row = self.table.get(key)
        if row.snapshot.kind is Kind.COMMITTED:
            raise NotFound(f'snapshot "{key}" is committed: it is mounted through a view')
        if self.volatile:
            # The kernel's mark of an unsynced mount: it would refuse the next one.
            shutil.rmtree(row.directory / "work/work/incompat", ignore_errors=True)
        return self._recipe(row)

    @hookimpl
    def stat(self, key: str) -> Snapshot:
        """One snapshot."""
        return self.table.get(key).snapshot

    @hookimpl
    def remove(self, key: str) -> None:
        """Remove the directories, also one that was placed elsewhere."""
        row = self.table.get(key)
        place = row.snapshot.labels.get(_PATH_LABEL)
        self.table.remove(key)
        if place:
            shutil.rmtree(Path(place) / f"lading-{key}", ignore_errors=True)

    @hookimpl
    def usage(self, key: str) -> Usage:
        """Measure the layer's own directory."""
        return Usage(*tree_usage(self.table.get(key).directory / "fs"))

    @hookimpl
    def walk(self) -> Iterator[Snapshot]:
        """All snapshots."""
        return self.table.walk()

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
        _take_root(self.table.get(parent).directory / "fs", row.directory / "fs")

    def _recipe(self, row: Row) -> Sequence[Mount]:
        lowers = [str(below.directory / "fs") for below in self.table.ancestors(row.snapshot.key)]
        if base := row.snapshot.labels.get(_BASE_LABEL):
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
    text = labels.get(_BASE_LABEL)
    if text is None:
        return None
    if parent or not os.path.isabs(text) or set(text) & set(":,\\"):
        raise Invalid(f'bad {_BASE_LABEL}="{text}"', hint="an absolute path, and no parent")
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


def _number(labels: Mapping[str, str], name: str) -> int:
    text = labels.get(name, "0")
    if not text.isdecimal():
        raise Invalid(f'bad limit {name}="{text}"', hint="a decimal number is expected")
    return int(text)


def _limit(directory: Path, size: int, inodes: int) -> None:
    """Limit what is written into a snapshot; its number makes its project's."""
    project = quota.FIRST_PROJECT + int(directory.name.rpartition("-")[2])
    quota.limit(directory / "fs", project, size, inodes)
    for name in ("fs", "work"):
        # overlayfs makes files in the work directory and renames them into the other, which the
        # kernel refuses between projects.
        quota.join(directory / name, project)


def _take_root(parent: Path, top: Path) -> None:
    """Give a layer's root the parent's mode and owner, unless the layer has set its own: what a
    stack shows of its root directory are the uppermost one's."""
    own, status = top.stat(), parent.stat()
    if (own.st_mode & 0o7777, own.st_uid, own.st_gid) == (0o755, 0, 0):
        os.chown(top, status.st_uid, status.st_gid)
        top.chmod(status.st_mode & 0o7777)


def _elsewhere(directory: Path, place: Path, key: str) -> None:
    """Put the writable layer under a directory of the user's choice."""
    target = place / f"lading-{key}"
    # The key is free, so this can only be what a crash has left.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700, parents=True)
    for name in ("fs", "work"):
        (target / name).mkdir(mode=0o755)
        (directory / name).symlink_to(target / name)


def _filesystem_type(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.filesystem_type(descriptor) & 0xFFFFFFFF
    finally:
        os.close(descriptor)
