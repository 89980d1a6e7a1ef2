"""Mount recipes made real: option words to flags, and mounts onto descriptors.

A :class:`lading.hooks.Mount` has mount(8)'s option words; :func:`parse_options` sorts them into
what the kernel takes. :func:`mount_recipe` makes a list of them. Options that together are longer
than a page (overlayfs with many layers) go through fsopen(2), one by one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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

# linux/prctl.h, linux/securebits.h
PR_GET_SECUREBITS, PR_SET_SECUREBITS = 27, 28
SECBIT_NO_SETUID_FIXUP = 1 << 2

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

#: Attributes of a whole tree (OCI runtime-spec 1.1, "rro" and relatives): what is set, and cleared.
_DEEP = {
    "rro": (syscalls.MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, syscalls.MOUNT_ATTR_RDONLY),
    "rnosuid": (syscalls.MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, syscalls.MOUNT_ATTR_NOSUID),
    "rnodev": (syscalls.MOUNT_ATTR_NODEV, 0),
    "rdev": (0, syscalls.MOUNT_ATTR_NODEV),
    "rnoexec": (syscalls.MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, syscalls.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (syscalls.MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, syscalls.MOUNT_ATTR_NODIRATIME),
    "rnosymfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, syscalls.MOUNT_ATTR_NOSYMFOLLOW),
    "rrelatime": (0, syscalls.MOUNT_ATTR_ATIME_MASK),
    "rnoatime": (syscalls.MOUNT_ATTR_NOATIME, syscalls.MOUNT_ATTR_ATIME_MASK),
    "rstrictatime": (syscalls.MOUNT_ATTR_STRICTATIME, syscalls.MOUNT_ATTR_ATIME_MASK),
}

#: Words that ask for a mount whose owners are shown through a user namespace; one for whole trees.
_DEEP_IDMAP = "ridmap"
IDMAP = frozenset({"idmap", _DEEP_IDMAP})


@dataclass(frozen=True, slots=True)
class Options:
    """Option words, sorted: mount(2) flags, propagation, attributes of the tree, data words."""

    flags: int
    propagation: int
    deep_set: int
    deep_clear: int
    data: tuple[str, ...]
    idmap: str


def parse_options(words: Iterable[str]) -> Options:
    """Sort mount(8)'s option words; unknown ones are the filesystem's own. The last one wins."""
    flags = propagation = deep_set = deep_clear = 0
    idmap, data = "", []
    for word in words:
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEAR:
            flags &= ~_CLEAR[word]
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word in _DEEP:
            setting, clearing = _DEEP[word]
            deep_set = deep_set & ~clearing | setting
            deep_clear = deep_clear & ~setting | clearing
        elif word in IDMAP:
            idmap = word
        elif word:
            data.append(word)
    return Options(flags, propagation, deep_set, deep_clear, tuple(data), idmap)


def mount_recipe(recipe: Sequence[Mount], target: str | Path, userns: int = -1) -> None:
    """Make every mount of a recipe on the directory ``target``, in order.

    Sub-targets are resolved inside ``target`` and must exist. ``userns`` is a descriptor of the
    user namespace for mounts with the option ``idmap`` or ``ridmap``. Raises OSError naming the
    mount; the mounts made before stay, for the caller's mount namespace to drop.
    """
    for entry in recipe:
        if not entry.target:
            mount_one(entry, str(target), userns)
            continue
        with paths.opened_root(target) as root:
            descriptor = paths.open_in_root(root, entry.target, os.O_PATH)
        try:
            mount_one(entry, descriptor, userns)
        finally:
            os.close(descriptor)


def is_bind(entry: Mount) -> bool:
    """Whether a mount shows an existing tree at another place."""
    return entry.type in ("bind", "rbind") or bool({"bind", "rbind"} & set(entry.options))


def mount_one(entry: Mount, place: str | int, userns: int = -1) -> None:
    """Make one mount at an existing place: a path that the caller trusts, or a descriptor."""
    if is_bind(entry):
        attach(bind_tree(entry, userns), place)
        return
    options = parse_options(entry.options)
    if options.idmap and entry.type == "overlay":
        entry, upper = _mapped_layers(entry, options, place, userns)
        with _acting_as_owner_of(upper):
            mount_one(entry, place)
        return
    name = place if isinstance(place, str) else f"/proc/self/fd/{place}"
    long = sum(len(word) + 1 for word in options.data) >= PAGE
    if long and not options.idmap and _mount_from_within(entry, options, os.path.abspath(name)):
        pass
    elif long or options.idmap:
        tree = new_tree(entry)
        if options.idmap:
            _map_ids(tree, options, userns)
        attach(tree, place)
    else:
        data = ",".join(options.data)
        syscalls.mount(entry.source or entry.type, name, entry.type, options.flags, data)
    if options.propagation:
        # A descriptor still means what was there before the mount: its name is looked up anew.
        top = name if isinstance(place, str) else os.readlink(name)
        syscalls.mount(None, top, None, options.propagation)


def _mount_from_within(entry: Mount, options: Options, place: str) -> bool:
    """Mount an overlay of many layers by names relative to the directory that they lie in.

    Whether that made the options short enough; if not, nothing was done. Kernels before 6.5 know no
    other way. The working directory is another one meanwhile: not for processes with threads.
    """
    layers = next((w[9:].split(":") for w in options.data if w.startswith("lowerdir=")), [])
    if entry.type != "overlay" or not layers:
        return False
    above = os.path.commonpath(layers)
    short = "lowerdir=" + ":".join(os.path.relpath(layer, above) for layer in layers)
    data = ",".join(short if w.startswith("lowerdir=") else w for w in options.data)
    if len(data) >= PAGE:
        return False
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(above)
        syscalls.mount(entry.source or entry.type, place, entry.type, options.flags, data)
    finally:
        os.fchdir(here)
        os.close(here)
    return True


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


def bind_tree(entry: Mount, userns: int = -1) -> int:
    """A detached copy of the tree at the source, with its attributes set before anyone sees it."""
    options = parse_options(entry.options)
    recursive = entry.type == "rbind" or bool(options.flags & MS_REC)
    deep = syscalls.AT_RECURSIVE if recursive else 0
    tree = syscalls.open_tree(syscalls.AT_FDCWD, entry.source, syscalls.OPEN_TREE_CLONE | deep)
    try:
        wanted, cleared = attributes(options.flags)
        if wanted or cleared:
            set_attributes(tree, wanted, cleared)
        if options.deep_set or options.deep_clear:
            set_attributes(tree, options.deep_set, options.deep_clear, deep=True)
        if options.idmap:
            _map_ids(tree, options, userns)
        if options.propagation:
            kind = options.propagation & ~MS_REC
            every = syscalls.AT_RECURSIVE if options.propagation & MS_REC else 0
            syscalls.mount_setattr(tree, "", syscalls.AT_EMPTY_PATH | every, propagation=kind)
    except OSError as error:
        os.close(tree)
        raise OSError(error.errno, f"bind mount: {error.strerror}", entry.source) from error
    return tree


def set_attributes(mount: int, wanted: int, cleared: int = 0, *, deep: bool = False) -> None:
    """Set and clear ``MOUNT_ATTR_*`` of the mount that a descriptor names, or of its whole tree."""
    flags = syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if deep else 0)
    syscalls.mount_setattr(mount, "", flags, attr_set=wanted, attr_clr=cleared)


def copy_tree(descriptor: int, *, deep: bool = False) -> int:
    """A detached copy of the mount, from what the descriptor names downwards."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
    return syscalls.open_tree(descriptor, "", flags | (syscalls.AT_RECURSIVE if deep else 0))


def attach(tree: int, place: str | int) -> None:
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


def _map_ids(tree: int, options: Options, userns: int) -> None:
    if userns < 0:
        raise OSError(errno.EINVAL, f'the option "{options.idmap}" needs a user namespace')
    deep = syscalls.AT_RECURSIVE if options.idmap == _DEEP_IDMAP else 0
    syscalls.mount_setattr(
        tree,
        "",
        syscalls.AT_EMPTY_PATH | deep,
        attr_set=syscalls.MOUNT_ATTR_IDMAP,
        userns=userns,
    )


@contextmanager
def _acting_as_owner_of(path: str) -> Iterator[None]:
    """Have the file system ids of a path's owner, and all capabilities still; "" does nothing.

    An overlay does its own work (copying up, whiteouts) with the credentials that mounted it. On
    an id-mapped upper layer the engine's root is nobody, who can make no file there.
    """
    if not path:
        yield
        return
    owner = os.stat(path)
    before = syscalls.prctl(PR_GET_SECUREBITS)
    syscalls.prctl(PR_SET_SECUREBITS, before | SECBIT_NO_SETUID_FIXUP)
    try:
        syscalls.libc.setfsgid(owner.st_gid)
        syscalls.libc.setfsuid(owner.st_uid)
        yield
    finally:
        syscalls.libc.setfsuid(os.geteuid())
        syscalls.libc.setfsgid(os.getegid())
        syscalls.prctl(PR_SET_SECUREBITS, before)


def _mapped_layers(
    entry: Mount, options: Options, place: str | int, userns: int
) -> tuple[Mount, str]:
    """The overlay over id-mapped copies of its layers, which lie on a tmpfs that it then hides.

    Also the path of the upper one, "" when there is none.

    An overlay cannot be mapped itself, but takes mapped layers since kernel 5.19. ``upperdir`` and
    ``workdir`` must be of one mount, so the directory above both is what is mapped.
    """
    if not isinstance(place, str):
        raise OSError(errno.EINVAL, "an id-mapped overlay needs a path as its place")
    syscalls.mount("tmpfs", place, "tmpfs", 0, "mode=700")
    count = 0

    def mapped(source: str) -> str:
        nonlocal count
        count += 1
        shown = f"{place}/{count}"
        os.mkdir(shown)
        tree = syscalls.open_tree(syscalls.AT_FDCWD, source, syscalls.OPEN_TREE_CLONE)
        _map_ids(tree, options, userns)
        attach(tree, shown)
        return shown

    words = dict(word.partition("=")[::2] for word in options.data)
    words["lowerdir"] = ":".join(mapped(layer) for layer in words["lowerdir"].split(":"))
    if "upperdir" in words:
        above = os.path.commonpath([words["upperdir"], words["workdir"]])
        shown = mapped(above)
        for key in ("upperdir", "workdir"):
            words[key] = f"{shown}/{os.path.relpath(words[key], above)}"
    kept = [w for w in entry.options if w != options.idmap and w not in options.data]
    data = [f"{key}={value}" if value else key for key, value in words.items()]
    mapped_entry = Mount(entry.type, entry.source, (*kept, *data), entry.target)
    return mapped_entry, words.get("upperdir", "")


def new_tree(entry: Mount) -> int:
    """A detached mount of a new filesystem by fsopen(2), without mount(2)'s page limit of options.

    It belongs to the namespaces of the caller.
    """
    options = parse_options(entry.options)
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
