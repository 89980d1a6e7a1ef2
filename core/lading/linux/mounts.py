"""Mount recipes made real: option words to flags, and mounts onto descriptors.

A :class:`lading.hooks.Mount` has mount(8)'s option words; :func:`parse_options` sorts them into
what the kernel takes. :func:`mount_recipe` makes a list of them. Options that together are longer
than a page (overlayfs with many layers) go through fsopen(2), one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lading.hooks.common import Mount
from lading.linux import paths, syscalls

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 0x10, 0x20, 0x40, 0x80
MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = 0x100, 0x400, 0x800
MS_BIND, MS_REC, MS_SILENT = 0x1000, 0x4000, 0x8000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25

PAGE = os.sysconf("SC_PAGE_SIZE")

_SET = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "mand": MS_MANDLOCK,
    "dirsync": MS_DIRSYNC,
    "nosymfollow": MS_NOSYMFOLLOW,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
    "silent": MS_SILENT,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
    "lazytime": MS_LAZYTIME,
    "remount": MS_REMOUNT,
}
_CLEAR = {
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
    "dev": MS_NODEV,
    "exec": MS_NOEXEC,
    "async": MS_SYNCHRONOUS,
    "nomand": MS_MANDLOCK,
    "symfollow": MS_NOSYMFOLLOW,
    "atime": MS_NOATIME,
    "diratime": MS_NODIRATIME,
    "norelatime": MS_RELATIME,
    "nostrictatime": MS_STRICTATIME,
    "nolazytime": MS_LAZYTIME,
    "loud": MS_SILENT,
    "defaults": 0,
}
_PROPAGATION = {
    name: flag | recursive
    for word, flag in (
        ("private", MS_PRIVATE),
        ("slave", MS_SLAVE),
        ("shared", MS_SHARED),
        ("unbindable", MS_UNBINDABLE),
    )
    for name, recursive in ((word, 0), (f"r{word}", MS_REC))
}

#: Recursive attributes of OCI runtime-spec 1.1 ("rro" and relatives), for mount_setattr(2).
_RECURSIVE_SET = {
    "rro": syscalls.MOUNT_ATTR_RDONLY,
    "rnosuid": syscalls.MOUNT_ATTR_NOSUID,
    "rnodev": syscalls.MOUNT_ATTR_NODEV,
    "rnoexec": syscalls.MOUNT_ATTR_NOEXEC,
}


@dataclass(frozen=True, slots=True)
class Options:
    """Option words, sorted: mount(2) flags, propagation, recursive attributes, data words."""

    flags: int
    propagation: int
    recursive: int
    data: tuple[str, ...]
    words: frozenset[str]


def parse_options(words: Iterable[str]) -> Options:
    """Sort mount(8)'s option words; unknown ones are the filesystem's own."""
    flags = propagation = recursive = 0
    data, seen = [], set()
    for word in words:
        seen.add(word)
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEAR:
            flags &= ~_CLEAR[word]
        elif word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        elif word in _RECURSIVE_SET:
            recursive |= _RECURSIVE_SET[word]
        elif word and word not in LADING_WORDS:
            data.append(word)
    return Options(flags, propagation, recursive, tuple(data), frozenset(seen))


#: Words that are for the receiver of a recipe, not for the kernel.
LADING_WORDS = frozenset({"idmap", "ridmap", "tmpcopyup"})


def mount_recipe(recipe: Sequence[Mount], target: str | Path) -> None:
    """Make every mount of a recipe on the directory ``target``, in order.

    Sub-targets are resolved inside ``target`` and must exist. Raises OSError naming the mount; the
    mounts made before stay, for the caller's mount namespace to drop.
    """
    for entry in recipe:
        if not entry.target:
            mount_one(entry, str(target))
            continue
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            descriptor = paths.open_in_root(root, entry.target, os.O_PATH)
        finally:
            os.close(root)
        try:
            mount_one(entry, descriptor)
        finally:
            os.close(descriptor)


def mount_one(entry: Mount, place: str | int) -> None:
    """Make one mount at an existing place: a path that the caller trusts, or a descriptor."""
    options = parse_options(entry.options)
    if options.flags & MS_BIND or entry.type in ("bind", "rbind"):
        recursive = entry.type == "rbind" or bool(options.flags & MS_REC)
        _attach(_bound(entry.source, options, recursive), place)
        return
    name = place if isinstance(place, str) else f"/proc/self/fd/{place}"
    if sum(len(word) + 1 for word in options.data) >= PAGE:
        _attach(_opened(entry, options), place)
    else:
        data = ",".join(options.data)
        syscalls.mount(entry.source or entry.type, name, entry.type, options.flags, data)
    if options.propagation:
        # A descriptor still means what was there before the mount: its name is looked up anew.
        top = name if isinstance(place, str) else os.readlink(name)
        syscalls.mount(None, top, None, options.propagation)


_ATTRIBUTES = {
    MS_RDONLY: syscalls.MOUNT_ATTR_RDONLY,
    MS_NOSUID: syscalls.MOUNT_ATTR_NOSUID,
    MS_NODEV: syscalls.MOUNT_ATTR_NODEV,
    MS_NOEXEC: syscalls.MOUNT_ATTR_NOEXEC,
    MS_NODIRATIME: syscalls.MOUNT_ATTR_NODIRATIME,
    MS_NOSYMFOLLOW: syscalls.MOUNT_ATTR_NOSYMFOLLOW,
    MS_NOATIME: syscalls.MOUNT_ATTR_NOATIME,
    MS_STRICTATIME: syscalls.MOUNT_ATTR_STRICTATIME,
}


def attributes(flags: int) -> tuple[int, int]:
    """mount(2) flags as what mount_setattr(2) sets and clears."""
    wanted = sum(value for flag, value in _ATTRIBUTES.items() if flags & flag)
    access_times = MS_NOATIME | MS_STRICTATIME | MS_RELATIME
    return wanted, syscalls.MOUNT_ATTR_ATIME_MASK if flags & access_times else 0


def _bound(source: str, options: Options, recursive: bool) -> int:
    """A detached copy of the tree at ``source``, with its attributes set before anyone sees it."""
    deep = syscalls.AT_RECURSIVE if recursive else 0
    tree = syscalls.open_tree(syscalls.AT_FDCWD, source, syscalls.OPEN_TREE_CLONE | deep)
    try:
        wanted, cleared = attributes(options.flags)
        if wanted or cleared:
            syscalls.mount_setattr(
                tree, "", syscalls.AT_EMPTY_PATH, attr_set=wanted, attr_clr=cleared
            )
        everywhere = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        if options.recursive:
            syscalls.mount_setattr(tree, "", everywhere, attr_set=options.recursive)
        if options.propagation:
            flags = everywhere if options.propagation & MS_REC else syscalls.AT_EMPTY_PATH
            syscalls.mount_setattr(tree, "", flags, propagation=options.propagation & ~MS_REC)
    except OSError as error:
        os.close(tree)
        raise OSError(error.errno, f"bind mount: {error.strerror}", source) from error
    return tree


def _attach(tree: int, place: str | int) -> None:
    """Attach a detached mount and close its descriptor."""
    from_tree = syscalls.MOVE_MOUNT_F_EMPTY_PATH
    try:
        if isinstance(place, str):
            syscalls.move_mount(tree, "", syscalls.AT_FDCWD, place, from_tree)
        else:
            to_descriptor = syscalls.MOVE_MOUNT_T_EMPTY_PATH
            syscalls.move_mount(tree, "", place, "", from_tree | to_descriptor)
    finally:
        os.close(tree)


def _opened(entry: Mount, options: Options) -> int:
    """A detached mount by fsopen(2), whose options have no page limit as mount(2)'s have."""
    context = syscalls.fsopen(entry.type)
    try:
        source = entry.source or entry.type
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", source)
        for word in options.data:
            _configure(context, word)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        return syscalls.fsmount(context, attributes(options.flags)[0])
    finally:
        os.close(context)


def _configure(context: int, word: str) -> None:
    key, has_value, value = word.partition("=")
    if not has_value:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, key, None)
    elif key == "lowerdir" and len(value) > 255:
        # A string parameter has 256 bytes at most; overlayfs takes layers one by one since 6.5.
        for layer in value.split(":"):
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "lowerdir+", layer)
    else:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)


def make_private(root: str = "/") -> None:
    """Cut the mount namespace off from its peers, so that nothing made here is seen elsewhere."""
    syscalls.mount(None, root, None, MS_REC | MS_PRIVATE)


def make_slave(root: str = "/") -> None:
    """Let mounts of the host's still arrive, while nothing made here goes back."""
    syscalls.mount(None, root, None, MS_REC | MS_SLAVE)
