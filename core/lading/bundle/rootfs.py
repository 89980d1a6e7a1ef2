"""The container's root, made inside its own mount namespace before anything of it runs.

Every name that comes from the image or from the user is resolved inside the root by
:mod:`lading.linux.paths`, and mounts go onto the descriptors that this gives: a symbolic link in an
image can redirect a mount within the root, never out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from lading.bundle.config import Config
from lading.hooks import Mount
from lading.linux import cgroups, mounts, paths, syscalls

#: Kernel interfaces that must be where their names say: an image that has a link there would make
#: the protected paths below them mean something else (CVE-2019-19921, CVE-2023-27561).
_UNDER_THEIR_NAME = ("proc", "sysfs")

#: Filesystems that can only be mounted by whoever owns a namespace, and which.
_OWNED_BY = {"sysfs": "network", "mqueue": "ipc"}


def detach_from_host(propagation: str, target: Path) -> None:
    """Nothing mounted here reaches the host; what the host mounts arrives only when asked for.

    With ``shared`` the volumes keep their peers on the host, and only the mount that the root
    will lie on is taken out.
    """
    kind = propagation.removeprefix("r")
    if kind == "shared":
        syscalls.mount(None, _mount_point_of(target), None, mounts.MS_PRIVATE)
    elif kind == "slave":
        mounts.make_slave()
    else:
        mounts.make_private()


def _mount_point_of(path: Path) -> str:
    """The mount point that a path lies below, by the kernel's own table."""
    table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    points = {line.split(" ")[4] for line in table.splitlines()}
    # Spaces and the like are written as octal numbers (proc_pid_mountinfo(5)).
    known = {_unescaped(point) for point in points}
    real = path.resolve()
    return next(str(above) for above in (real, *real.parents) if str(above) in known)


def _unescaped(text: str) -> str:
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def own_mount_here() -> int:
    """Bind the working directory on itself and return the new mount's descriptor.

    In a user namespace the mounts that came from outside are locked in place; this one is its own.
    """
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
    tree = syscalls.open_tree(syscalls.AT_FDCWD, ".", flags)
    syscalls.move_mount(tree, "", syscalls.AT_FDCWD, ".", syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    return tree


def trees_from_outside(config: Config, userns: int) -> dict[int, int]:
    """Detached mounts that a process in the user namespace could not make, by their index.

    It may not walk to the sources of volumes, nor mount what other namespaces' owners must.
    """
    found = {}
    for index, (_, entry) in enumerate(config.mounts):
        if mounts.is_bind(entry):
            found[index] = mounts.bind_tree(entry, userns)
        elif config.namespaces.get(_OWNED_BY.get(entry.type, ""), ""):
            found[index] = mounts.new_tree(entry)
    return found


def make(config: Config, root: int, group: cgroups.Cgroup, trees: Mapping[int, int]) -> None:
    """Make all mounts of the config; ``root`` is the root's descriptor."""
    for index, (destination, entry) in enumerate(config.mounts):
        if entry.type == "cgroup":
            _mount_cgroups(root, destination, entry, config, group)
            continue
        if entry.type == "tmpfs":
            entry = _with_mode(entry, root, destination)
        target = _target(root, destination, entry, trees.get(index, -1))
        try:
            if index in trees:
                mounts.attach(trees[index], target)
            else:
                mounts.mount_one(entry, target)
        finally:
            os.close(target)


def _target(root: int, destination: str, entry: Mount, tree: int) -> int:
    """A descriptor of the mount point, made when missing: a file for a file, else a directory."""
    try:
        if mounts.is_bind(entry):
            status = os.fstat(tree) if tree >= 0 else os.stat(entry.source)
            if not stat.S_ISDIR(status.st_mode):
                return paths.make_file(root, destination)
        descriptor = paths.make_directories(root, destination)
        if entry.type in _UNDER_THEIR_NAME:
            os.close(descriptor)
            return paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY, links=False)
        return descriptor
    except OSError as error:
        what = f"mount point for {entry.source or entry.type}"
        raise OSError(error.errno, f"{what}: {error.strerror}", destination) from error


def _with_mode(entry: Mount, root: int, destination: str) -> Mount:
    """A tmpfs has the mode of the directory that it hides, unless the options say otherwise."""
    if any(word.startswith("mode=") for word in entry.options):
        return entry
    try:
        mode = stat.S_IMODE(paths.status(root, destination).st_mode)
    except FileNotFoundError:
        return entry
    return Mount(entry.type, entry.source, (*entry.options, f"mode={mode:o}"))


def _mount_cgroups(
    root: int, destination: str, entry: Mount, config: Config, group: cgroups.Cgroup
) -> None:
    """cgroup2, or a tmpfs with the version 1 hierarchies, of the container's own group."""
    flags = tuple(word for word in entry.options if word not in ("ro", "rw"))
    access = "ro" if "ro" in entry.options else "rw"
    place = paths.make_directories(root, destination)
    try:
        if group.unified and "cgroup" in config.namespaces:
            mounts.mount_one(Mount("cgroup2", "cgroup", (*flags, access)), place)
            return
        if group.unified:
            source = group.directories[cgroups.UNIFIED]
            mounts.mount_one(Mount("bind", source, ("bind", *flags, access)), place)
            return
        mounts.mount_one(Mount("tmpfs", "tmpfs", (*flags, "mode=755")), place)
    finally:
        os.close(place)
    top = paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY)
    try:
        _bind_hierarchies(top, group, (*flags, access))
        if access == "ro":
            mounts.set_attributes(top, syscalls.MOUNT_ATTR_RDONLY)
    finally:
        os.close(top)


def _bind_hierarchies(top: int, group: cgroups.Cgroup, words: tuple[str, ...]) -> None:
    done: set[str] = set()
    for key, mounted in cgroups.hierarchies().mounts.items():
        if key not in group.directories:
            continue
        name = os.path.basename(mounted)
        if mounted not in done:
            done.add(mounted)
            os.mkdir(name, 0o755, dir_fd=top)
            here = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            mounts.mount_one(Mount("bind", group.directories[key], ("bind", *words)), here)
            os.close(here)
        if key not in (name, cgroups.UNIFIED) and not key.startswith("name="):
            os.symlink(name, key, dir_fd=top)


def make_working_directory(root: int, cwd: str) -> None:
    """Make the working directory when the image does not have it, as Docker does."""
    try:
        os.close(paths.make_directories(root, cwd))
    except OSError as error:
        # A file in the way, or a read-only volume: entering it says what is wrong.
        if error.errno not in (
            errno.ENOTDIR, errno.EROFS, errno.EEXIST, errno.ELOOP, errno.EACCES, errno.EPERM,
        ):  # fmt: skip
            raise


def enter(root: int, propagation: str) -> None:
    """Make ``root`` this process's root and let go of the old one (pivot_root(2), NOTES)."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    os.close(root)
    syscalls.pivot_root(".", ".")
    # The old root lies over the new one now, and goes with everything that is mounted in it.
    os.fchdir(old)
    os.close(old)
    if propagation.removeprefix("r") == "shared":
        # Its peers on the host must not go with it.
        syscalls.mount(None, ".", None, mounts.MS_SLAVE | mounts.MS_REC)
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
    if propagation.removeprefix("r") not in ("", "private"):
        syscalls.mount(None, "/", None, mounts.parse_options((propagation,)).propagation)
