"""What a container finds in /dev: nodes, links, and the console."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Mapping
from typing import Any

from lading.bundle.config import Config
from lading.hooks import Mount
from lading.linux import mounts, paths

#: What every container has (OCI runtime-spec, "Default Devices").
_DEFAULT = {
    f"/dev/{name}": {"type": "c", "major": major, "minor": minor, "fileMode": 0o666}
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9),
        ("tty", 5, 0),
    )
}  # fmt: skip
_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)  # fmt: skip
_KINDS = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}

_TIOCSPTLCK, _TIOCGPTPEER, _TIOCSWINSZ = 0x40045431, 0x5441, 0x5414


def populate(config: Config, root: int) -> None:
    """Make nodes and links, unless /dev is bound from elsewhere and not the container's to fill."""
    for destination, entry in config.mounts:
        if destination.rstrip("/") == "/dev" and mounts.is_bind(entry):
            return
    dev = paths.make_directories(root, "dev")
    try:
        wanted = _DEFAULT | {d["path"]: d for d in config.linux.get("devices") or ()}
        if paths.exists(root, "dev/pts/ptmx"):
            # The host's, which a privileged container is given with all others, is not its own.
            wanted.pop("/dev/ptmx", None)
        for path, device in wanted.items():
            _make_node(root, dev, path, device, bind=config.remapped)
        for name, target in _LINKS:
            _link(dev, name, target)
        if os.path.exists("/proc/kcore"):
            _link(dev, "core", "/proc/kcore")
        if paths.exists(root, "dev/pts/ptmx"):
            _link(dev, "ptmx", "pts/ptmx")
    finally:
        os.close(dev)


def _link(directory: int, name: str, target: str) -> None:
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass


def _make_node(root: int, dev: int, path: str, device: Mapping[str, Any], *, bind: bool) -> None:
    if bind:
        # A user namespace may not make devices; the host's own are bound instead.
        target = paths.make_file(root, path)
        try:
            mounts.mount_one(Mount("bind", path, ("bind",)), target)
        finally:
            os.close(target)
        return
    name = path.removeprefix("/dev/")
    if path.startswith("/dev/") and "/" not in name:
        _node(dev, name.encode(), device)
        return
    parent, last = paths.open_parent(root, path, make=True)
    try:
        _node(parent, last, device)
    finally:
        os.close(parent)


def _node(parent: int, name: bytes, device: Mapping[str, Any]) -> None:
    mode = 0o666 if device.get("fileMode") is None else device["fileMode"]
    number = os.makedev(device.get("major") or 0, device.get("minor") or 0)
    try:
        os.mknod(name, _KINDS[device["type"]] | mode, number, dir_fd=parent)
    except FileExistsError:
        return
    uid, gid = device.get("uid") or 0, device.get("gid") or 0
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    os.chmod(name, mode, dir_fd=parent)


def open_console(root: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """A new pseudo-terminal of the root's own devpts: (master, slave).

    The slave is opened through the master (``TIOCGPTPEER``), not by a name that could be swapped.
    """
    master = paths.open_in_root(root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size is not None:
        fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    return master, slave


def bind_console(root: int, slave: int) -> None:
    """Show a terminal as /dev/console; a link of that name is an error (CVE-2025-52565)."""
    os.close(paths.make_file(root, "dev/console"))
    target = paths.open_in_root(root, "dev/console", os.O_PATH, links=False)
    try:
        mounts.attach(mounts.copy_tree(slave), target)
    finally:
        os.close(target)
