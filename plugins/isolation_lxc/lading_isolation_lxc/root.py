"""LXC's mount hook: fill the root, inside the container's namespaces and before it is pivoted to.

Every name that comes from the image or from the user is resolved inside the root by
:mod:`lading.linux.paths`, and mounts go onto the descriptors that this gives.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lading.hooks.common import Mount
from lading.linux import cgroups, mounts, paths, syscalls

_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_DEFAULT = [
    {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
    for name, (major, minor) in (_NODES | {"tty": (5, 0)}).items()
]
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
}
_KINDS = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}
_EMPTY = Mount("tmpfs", "tmpfs", ("ro", "nosuid", "nodev", "noexec", "nr_inodes=1", "size=4k"))


def main(bundle: Path, state: Path, target: str) -> None:
    """Fill the root at ``target``; what goes wrong is left in the file ``error``."""
    os.umask(0o022)
    spec = json.loads((bundle / "config.json").read_text())
    try:
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fill(root, spec)
    except OSError as error:
        words = [error.errno, error.strerror, os.fsdecode(error.filename or "")]
        (state / "error").write_text(json.dumps(words))
        sys.exit(1)


def fill(root: int, spec: Mapping[str, Any]) -> None:
    """Mounts, devices, protected paths, working directory, and last the root's own mode."""
    linux = spec.get("linux") or {}
    for row in spec.get("mounts") or ():
        entry = Mount(row["type"], row.get("source") or "", tuple(row.get("options") or ()))
        _mount(root, row["destination"], entry, linux["cgroupsPath"])
    _populate(root, linux.get("devices") or ())
    for path in linux.get("readonlyPaths") or ():
        if (place := _open(root, path)) >= 0:
            tree = mounts.copy_tree(place, deep=True)
            mounts.set_attributes(tree, syscalls.MOUNT_ATTR_RDONLY, deep=True)
            mounts.attach(tree, place)
    _mask(root, linux.get("maskedPaths") or ())
    _make_working_directory(root, spec["process"].get("cwd") or "/")
    if (spec.get("root") or {}).get("readonly"):
        mounts.set_attributes(root, syscalls.MOUNT_ATTR_RDONLY)


def _mount(root: int, destination: str, entry: Mount, group: str) -> None:
    if entry.type == "cgroup":
        _mount_cgroups(root, destination, entry, group)
        return
    bind = mounts.is_bind(entry)
    if bind and not stat.S_ISDIR(os.stat(entry.source).st_mode):
        place = paths.make_file(root, destination)
    else:
        place = paths.make_directories(root, destination)
    if entry.type in ("proc", "sysfs"):
        # A link in the image would make the protected paths below mean something else.
        os.close(place)
        place = paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY, links=False)
    if entry.type == "tmpfs" and not any(o.startswith("mode=") for o in entry.options):
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        entry = Mount(entry.type, entry.source, (*entry.options, f"mode={mode:o}"))
    try:
        mounts.mount_one(entry, place)
    finally:
        os.close(place)


def _mount_cgroups(root: int, destination: str, entry: Mount, path: str) -> None:
    """The hierarchies of the container's own group."""
    flags = tuple(word for word in entry.options if word not in ("ro", "rw"))
    access = "ro" if "ro" in entry.options else "rw"
    group = cgroups.Cgroup.at(path)
    os.close(paths.make_directories(root, destination))
    top = paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY)
    if group.unified:
        source = group.directories[cgroups.UNIFIED]
        mounts.mount_one(Mount("bind", source, ("bind", *flags, access)), top)
        return
    mounts.mount_one(Mount("tmpfs", "tmpfs", (*flags, "mode=755")), top)
    os.close(top)
    top = paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY)
    for name in {os.path.basename(m) for m in cgroups.hierarchies().mounts.values()}:
        os.mkdir(name, 0o755, dir_fd=top)
    for key, mounted in cgroups.hierarchies().mounts.items():
        name = os.path.basename(mounted)
        if key in group.directories:
            here = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            source = Mount("bind", group.directories[key], ("bind", *flags, access))
            mounts.mount_one(source, here)
            os.close(here)
    if access == "ro":
        mounts.set_attributes(top, syscalls.MOUNT_ATTR_RDONLY)
    os.close(top)


def _populate(root: int, devices: Sequence[Mapping[str, Any]]) -> None:
    for device in {d["path"]: d for d in [*_DEFAULT, *devices]}.values():
        parent, name = paths.open_parent(root, device["path"], make=True)
        mode = 0o666 if device.get("fileMode") is None else device["fileMode"]
        number = os.makedev(device.get("major") or 0, device.get("minor") or 0)
        try:
            os.mknod(name, _KINDS[device["type"]] | mode, number, dir_fd=parent)
            os.chown(name, device.get("uid") or 0, device.get("gid") or 0, dir_fd=parent)
            os.chmod(name, mode, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)
    dev = paths.make_directories(root, "dev")
    links = dict(_LINKS)
    if paths.exists(root, "dev/pts/ptmx"):
        links["ptmx"] = "pts/ptmx"
    for link, target in links.items():
        try:
            os.symlink(target, link, dir_fd=dev)
        except FileExistsError:
            pass
    os.close(dev)


def _open(root: int, path: str) -> int:
    """A path's descriptor, or -1 when it is not there."""
    try:
        return paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _mask(root: int, masked: Sequence[str]) -> None:
    null = paths.open_in_root(root, "dev/null", os.O_PATH | os.O_NOFOLLOW)
    if os.fstat(null).st_rdev != os.makedev(1, 3):
        raise OSError(errno.EINVAL, "not the null device", "/dev/null")
    for path in masked:
        if (place := _open(root, path)) < 0:
            continue
        if stat.S_ISDIR(os.fstat(place).st_mode):
            mounts.mount_one(_EMPTY, place)
        else:
            mounts.attach(mounts.copy_tree(null), place)
        os.close(place)


def _make_working_directory(root: int, cwd: str) -> None:
    try:
        os.close(paths.make_directories(root, cwd))
    except OSError as error:
        # A file in the way, or a read-only volume: entering it says what is wrong.
        if error.errno not in (errno.ENOTDIR, errno.EROFS, errno.EEXIST, errno.ELOOP):
            raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), os.environ["LXC_ROOTFS_MOUNT"])
