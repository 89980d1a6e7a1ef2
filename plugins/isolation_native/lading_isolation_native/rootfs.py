"""The container's root, made inside its own mount namespace before anything of it runs.

Every name that comes from the image or from the user is resolved inside the root by
:mod:`lading.linux.paths`, and mounts go onto the descriptors that this gives: a symbolic link in an
image can redirect a mount within the root, never out of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lading.hooks import Mount
from lading.linux import cgroups, mounts, paths, syscalls
from lading_isolation_native.config import Config

#: What every container finds in /dev (OCI runtime-spec, "Default Devices").
_DEVICES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9),
    ("tty", 5, 0),
)  # fmt: skip
_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("core", "/proc/kcore"),
)  # fmt: skip

_TIOCSPTLCK, _TIOCGPTPEER, _TIOCSWINSZ = 0x40045431, 0x5441, 0x5414

_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "rprivate": mounts.MS_PRIVATE | mounts.MS_REC,
    "slave": mounts.MS_SLAVE,
    "rslave": mounts.MS_SLAVE | mounts.MS_REC,
    "shared": mounts.MS_SHARED,
    "rshared": mounts.MS_SHARED | mounts.MS_REC,
    "unbindable": mounts.MS_UNBINDABLE,
    "runbindable": mounts.MS_UNBINDABLE | mounts.MS_REC,
}


def detach_from_host(propagation: str) -> None:
    """Nothing mounted here reaches the host; what the host mounts arrives only when asked for."""
    if propagation.removeprefix("r") in ("slave", "shared"):
        mounts.make_slave()
    else:
        mounts.make_private()


def own_mount_here() -> int:
    """Bind the working directory on itself and return the new mount's descriptor.

    In a user namespace the mounts that came from outside are locked in place; this one is its own.
    """
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
    tree = syscalls.open_tree(syscalls.AT_FDCWD, ".", flags)
    syscalls.move_mount(tree, "", syscalls.AT_FDCWD, ".", syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    return tree


def make(config: Config, root: int, group: cgroups.Cgroup) -> None:
    """Mount and create everything that belongs into the root; ``root`` is its descriptor."""
    own_dev = False
    for destination, entry in config.mounts:
        if entry.type == "cgroup":
            _mount_cgroups(root, destination, entry, config, group)
            continue
        target = _target(root, destination, entry)
        try:
            mounts.mount_one(entry, target)
        finally:
            os.close(target)
        if destination.rstrip("/") == "/dev":
            own_dev = entry.type not in ("bind", "rbind")
    if own_dev:
        _populate_dev(config, root)


def _target(root: int, destination: str, entry: Mount) -> int:
    """A descriptor of the mount point, made when missing: a file for a file, else a directory."""
    bind = entry.type in ("bind", "rbind") or {"bind", "rbind"} & set(entry.options)
    try:
        if bind and not stat.S_ISDIR(os.stat(entry.source).st_mode):
            return paths.make_file(root, destination)
        return paths.make_directories(root, destination)
    except OSError as error:
        raise OSError(
            error.errno,
            f"mount point for {entry.source or entry.type}: {error.strerror}",
            destination,
        ) from error


def _mount_cgroups(
    root: int, destination: str, entry: Mount, config: Config, group: cgroups.Cgroup
) -> None:
    """cgroup2, or a tmpfs with the version 1 hierarchies, of the container's own group."""
    flags = tuple(word for word in entry.options if word not in ("ro", "rw"))
    access = "ro" if "ro" in entry.options else "rw"
    own_namespace = "cgroup" in config.namespaces
    place = paths.make_directories(root, destination)
    if group.unified:
        if own_namespace:
            mounts.mount_one(Mount("cgroup2", "cgroup", (*flags, access)), place)
        else:
            source = group.directories[cgroups.UNIFIED]
            mounts.mount_one(Mount("bind", source, ("bind", *flags, access)), place)
        os.close(place)
        return
    mounts.mount_one(Mount("tmpfs", "tmpfs", (*flags, "mode=755")), place)
    os.close(place)
    tops = cgroups.hierarchies().mounts
    done: set[str] = set()
    top = paths.make_directories(root, destination)
    try:
        for key, mounted in tops.items():
            name = os.path.basename(mounted)
            if mounted not in done and key in group.directories:
                done.add(mounted)
                here = _made(top, name)
                source = group.directories[key]
                mounts.mount_one(Mount("bind", source, ("bind", *flags, access)), here)
                os.close(here)
            if key and key != name and not key.startswith("name="):
                os.symlink(name, key, dir_fd=top)
        if access == "ro":
            again = paths.open_in_root(root, destination, os.O_PATH)
            syscalls.mount_setattr(
                again, "", syscalls.AT_EMPTY_PATH, attr_set=syscalls.MOUNT_ATTR_RDONLY
            )
            os.close(again)
    finally:
        os.close(top)


def _made(directory: int, name: str) -> int:
    os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _populate_dev(config: Config, root: int) -> None:
    dev = paths.open_in_root(root, "dev", os.O_PATH | os.O_DIRECTORY)
    try:
        wanted = [
            {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
            for name, major, minor in _DEVICES
        ]
        for device in [*wanted, *(config.linux.get("devices") or ())]:
            _make_device(root, dev, device, bind=config.new_user_namespace)
        for name, target in _LINKS:
            _link(dev, name, target)
        if paths.exists(root, "dev/pts/ptmx"):
            _link(dev, "ptmx", "pts/ptmx")
    finally:
        os.close(dev)


def _link(directory: int, name: str, target: str) -> None:
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass


def _make_device(root: int, dev: int, device: Mapping[str, Any], *, bind: bool) -> None:
    path = device["path"]
    inside_dev = path.startswith("/dev/") and "/" not in path[5:]
    parent, name = (
        (os.dup(dev), path[5:].encode()) if inside_dev else paths.open_parent(root, path, make=True)
    )
    try:
        if bind:
            # A user namespace may not make devices; the host's own are bound instead.
            target = paths.make_file(root, path)
            mounts.mount_one(Mount("bind", path, ("bind",)), target)
            os.close(target)
            return
        kinds = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}
        mode = device.get("fileMode")
        mode = 0o666 if mode is None else mode
        number = os.makedev(device.get("major") or 0, device.get("minor") or 0)
        try:
            os.mknod(name, kinds[device["type"]] | mode, number, dir_fd=parent)
        except FileExistsError:
            return
        os.chown(
            name,
            device.get("uid") or 0,
            device.get("gid") or 0,
            dir_fd=parent,
            follow_symlinks=False,
        )
        os.chmod(name, mode, dir_fd=parent)
    finally:
        os.close(parent)


def open_console(root: int, size: tuple[int, int] | None, *, bind: bool) -> tuple[int, int]:
    """A new pseudo-terminal of the root's own devpts: (master, slave); bound on /dev/console.

    The slave is opened through the master (``TIOCGPTPEER``), not by a name that could be swapped.
    """
    master = paths.open_in_root(root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size is not None:
        fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    if bind:
        target = paths.make_file(root, "dev/console")
        tree = syscalls.open_tree(slave, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
        syscalls.move_mount(tree, "", target, "", flags)
        os.close(tree)
        os.close(target)
    return master, slave


def enter(root: int) -> None:
    """Make ``root`` this process's root and let go of the old one (pivot_root(2), NOTES)."""
    os.fchdir(root)
    syscalls.pivot_root(".", ".")
    # The old root lies over the new one now, and goes with everything that is mounted in it.
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def protect(config: Config) -> None:
    """After :func:`enter`: propagation, masked and read-only paths, a read-only root."""
    propagation = config.linux.get("rootfsPropagation") or ""
    if propagation.removeprefix("r") not in ("", "private"):
        syscalls.mount(None, "/", None, _PROPAGATION[propagation])
    with paths.opened_root("/") as root:
        for path in config.linux.get("readonlyPaths") or ():
            _if_there(root, path, _make_read_only)
        masked: Sequence[str] = config.linux.get("maskedPaths") or ()
        if masked:
            null = _verified_null(root)
            for path in masked:
                _if_there(root, path, lambda target: _mask(target, null))
            os.close(null)
    if config.read_only:
        syscalls.mount_setattr(syscalls.AT_FDCWD, "/", 0, attr_set=syscalls.MOUNT_ATTR_RDONLY)


def _if_there(root: int, path: str, act: Callable[[int], None]) -> None:
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        act(target)
    except OSError as error:
        raise OSError(error.errno, f"protect: {error.strerror}", path) from error
    finally:
        os.close(target)


def _copy_of(target: int, *, recursive: bool) -> int:
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
    return syscalls.open_tree(target, "", flags | (syscalls.AT_RECURSIVE if recursive else 0))


def _attach(tree: int, target: int) -> None:
    flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
    try:
        syscalls.move_mount(tree, "", target, "", flags)
    finally:
        os.close(tree)


def _make_read_only(target: int) -> None:
    tree = _copy_of(target, recursive=True)
    syscalls.mount_setattr(
        tree,
        "",
        syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE,
        attr_set=syscalls.MOUNT_ATTR_RDONLY,
    )
    _attach(tree, target)


def _verified_null(root: int) -> int:
    """The container's /dev/null, surely that: a swapped one would expose what it masks."""
    descriptor = paths.open_in_root(root, "dev/null", os.O_PATH | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not the null device", "/dev/null")
    return descriptor


def _mask(target: int, null: int) -> None:
    if stat.S_ISDIR(os.fstat(target).st_mode):
        empty = ("ro", "nosuid", "nodev", "noexec", "nr_inodes=1", "size=4k")
        mounts.mount_one(Mount("tmpfs", "tmpfs", empty), target)
    else:
        _attach(_copy_of(null, recursive=False), target)


def write_sysctls(values: Mapping[str, str]) -> None:
    """Set kernel parameters through a procfs that nobody else can have touched."""
    if not values:
        return
    context = syscalls.fsopen("proc")
    syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
    proc = syscalls.fsmount(context, 0)
    os.close(context)
    try:
        for name, value in values.items():
            # Slashes may stand for dots, so that an interface's name can have some.
            path = name if "/" in name else name.replace(".", "/")
            try:
                descriptor = syscalls.openat2(
                    proc,
                    f"sys/{path}",
                    os.O_WRONLY,
                    0,
                    syscalls.RESOLVE_BENEATH
                    | syscalls.RESOLVE_NO_SYMLINKS
                    | syscalls.RESOLVE_NO_XDEV,
                )
                os.write(descriptor, value.encode())
                os.close(descriptor)
            except OSError as error:
                raise OSError(
                    error.errno, f'sysctl "{name}" = "{value}": {os.strerror(error.errno or 0)}'
                ) from error
    finally:
        os.close(proc)
