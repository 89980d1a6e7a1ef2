"""What users write about mounts, read: ``-v``, ``--mount``, ``--tmpfs``, ``--volumes-from``.

The result is a list of :class:`MountPoint`; volumes in it have no source yet and anonymous ones
no name. Nothing is touched here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from lading.containers.records import MountPoint
from lading.errors import Invalid
from lading.model.docker import BindOptions, ContainerConfig, HostConfig, Mount, TmpfsOptions

PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_CONSISTENCY = frozenset({"consistent", "cached", "delegated", "default"})
_ACCESS = frozenset({"ro", "rw", "rro"})
_LABELS = frozenset({"z", "Z"})

#: Options that every tmpfs of a user's has, unless the user takes them back.
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_TMPFS_FLAGS = {
    "exec": "noexec",
    "suid": "nosuid",
    "dev": "nodev",
    "rw": "ro",
    "atime": "noatime",
    "diratime": "nodiratime",
    "async": "sync",
}
_TMPFS_SWITCHES = frozenset(_TMPFS_FLAGS) | frozenset(_TMPFS_FLAGS.values()) | PROPAGATIONS
_TMPFS_SWITCHES |= {"relatime", "norelatime", "strictatime", "nostrictatime"}
_TMPFS_VALUES = frozenset(
    {"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge", "inode64", "noswap"}
)


def collect(
    config: ContainerConfig,
    host: HostConfig,
    mounts_of: Callable[[str], Sequence[MountPoint]],
) -> tuple[MountPoint, ...]:
    """All mounts that a container is to have, from every source, by destination.

    ``mounts_of`` gives those of another container. Raises Invalid for wrong and double ones.
    """
    found: dict[str, MountPoint] = {}
    for text in host.volumes_from:
        for mount in _from_container(text, mounts_of):
            found[mount.destination] = mount
    own: set[str] = set()
    requested = [parse_bind(b, host.volume_driver) for b in host.binds]
    requested += [parse_mount(m) for m in host.mounts]
    for mount in requested:
        if mount.destination in own:
            raise Invalid(f"Duplicate mount point: {mount.destination}")
        own.add(mount.destination)
        found[mount.destination] = mount
    for destination, options in host.tmpfs.items():
        where = _destination(destination, destination)
        if where in own:
            raise Invalid(f"Duplicate mount point: {where}")
        tmpfs_options(options.split(",") if options else [])
        found.pop(where, None)
    shadowed = {posixpath.normpath(d) for d in host.tmpfs}
    for volume in config.volumes:
        where = _destination(volume, volume)
        if where not in found and where not in shadowed:
            found[where] = MountPoint("volume", where, driver=host.volume_driver, anonymous=True)
    return tuple(found.values())


def _from_container(
    text: str, mounts_of: Callable[[str], Sequence[MountPoint]]
) -> Iterable[MountPoint]:
    ref, colon, mode = text.partition(":")
    if not ref:
        raise Invalid(f"invalid volumes-from specification: '{text}'")
    words = set(mode.split(",")) if colon else {"rw"}
    if not words <= {"ro", "rw", "z", "Z", "nocopy"}:
        raise Invalid(f"invalid mode: {mode}")
    for mount in mounts_of(ref):
        yield msgspec.structs.replace(
            mount,
            rw=mount.rw and "ro" not in words,
            mode=mode if colon else mount.mode,
            # Its volumes stay the other's: they do not go with this container.
            anonymous=False,
        )


def parse_bind(text: str, driver: str = "") -> MountPoint:
    """``-v``: ``destination``, ``source:destination`` or ``source:destination:mode``."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts[:2]) or (len(parts) == 3 and not parts[2]):
        raise Invalid(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        where = _destination(parts[0], text)
        return MountPoint("volume", where, driver=driver, anonymous=True)
    source, where = parts[0], _destination(parts[1], text)
    mode = parts[2] if len(parts) == 3 else ""
    words = set(mode.split(",")) if mode else set()
    is_bind = source.startswith("/")
    _check_mode(mode, words, is_bind=is_bind)
    rw = not words & {"ro", "rro"}
    if not is_bind:
        return MountPoint(
            "volume",
            where,
            name=source,
            driver=driver,
            mode=mode or "z",
            rw=rw,
            copy="nocopy" not in words,
        )
    return MountPoint(
        "bind",
        where,
        source=posixpath.normpath(source),
        mode=mode,
        rw=rw,
        propagation=next(iter(words & PROPAGATIONS), "rprivate"),
        recursive_ro="rro" in words,
        create_source=True,
    )


def _check_mode(mode: str, words: set[str], *, is_bind: bool) -> None:
    allowed = _ACCESS | _LABELS | _CONSISTENCY
    allowed |= PROPAGATIONS if is_bind else frozenset({"nocopy"})
    groups = (_ACCESS, _LABELS, _CONSISTENCY, PROPAGATIONS)
    if not words <= allowed or any(len(words & group) > 1 for group in groups):
        raise Invalid(f"invalid mode: {mode}")


def _destination(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise Invalid(
            f"invalid volume specification: '{text}': invalid mount config for type \"volume\": "
            f"invalid mount path: '{path}' mount path must be absolute"
        )
    where = posixpath.normpath(path)
    where = "/" + where.lstrip("/")
    if where == "/":
        raise Invalid(f"invalid volume specification: '{text}': destination can't be '/'")
    return where


def parse_mount(mount: Mount) -> MountPoint:
    """``--mount``. Raises Invalid as Docker words it."""
    kind = mount.type
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise Invalid(f'invalid mount config for type "{kind}": mount type unknown')
    if not mount.target:
        raise _wrong(mount, "field Target must not be empty")
    if not mount.target.startswith("/"):
        raise _wrong(mount, f"invalid mount path: '{mount.target}' mount path must be absolute")
    where = posixpath.normpath(mount.target)
    if where == "/":
        raise _wrong(mount, "invalid specification: destination can't be '/'")
    for name in ("bind", "volume", "tmpfs", "image"):
        if name != kind and getattr(mount, f"{name}_options") is not None:
            raise _wrong(mount, f"field {name.capitalize()}Options must not be specified")
    return _MOUNT_KINDS[kind](mount, where)


def _wrong(mount: Mount, reason: str) -> Invalid:
    return Invalid(f'invalid mount config for type "{mount.type}": {reason}')


def _bind(mount: Mount, where: str) -> MountPoint:
    if not mount.source:
        raise _wrong(mount, "field Source must not be empty")
    if not mount.source.startswith("/"):
        raise _wrong(mount, f"invalid mount path: '{mount.source}' mount path must be absolute")
    options = mount.bind_options or BindOptions()
    if options.propagation and options.propagation not in PROPAGATIONS:
        raise _wrong(mount, f"invalid propagation mode: {options.propagation}")
    if options.read_only_force_recursive and not mount.read_only:
        raise _wrong(mount, "mode must be ReadOnly when setting ReadOnlyForceRecursive")
    return MountPoint(
        "bind",
        where,
        source=posixpath.normpath(mount.source),
        rw=not mount.read_only,
        propagation=options.propagation or "rprivate",
        recursive_ro=options.read_only_force_recursive,
        recursive=not options.non_recursive,
        create_source=options.create_mountpoint,
        owners_mapped=options.owners_mapped,
    )


def _volume(mount: Mount, where: str) -> MountPoint:
    options = mount.volume_options
    driver = (options.driver_config.name if options and options.driver_config else "") or ""
    return MountPoint(
        "volume",
        where,
        name=mount.source,
        driver=driver,
        mode="z",
        rw=not mount.read_only,
        anonymous=not mount.source,
        copy=not (options and options.no_copy),
        subpath=_subpath(mount, options.subpath) if options else "",
    )


def _tmpfs(mount: Mount, where: str) -> MountPoint:
    if mount.source:
        raise _wrong(mount, "field Source must not be specified")
    options = mount.tmpfs_options or TmpfsOptions()
    words = ["ro"] if mount.read_only else []
    if options.mode:
        words.append(f"mode={options.mode:o}")
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    words += ["=".join(pair) for pair in options.options]
    return MountPoint("tmpfs", where, rw=not mount.read_only, options=tuple(tmpfs_options(words)))


def _image(mount: Mount, where: str) -> MountPoint:
    if not mount.source:
        raise _wrong(mount, "field Source must not be empty")
    subpath = _subpath(mount, mount.image_options.subpath) if mount.image_options else ""
    return MountPoint("image", where, source=mount.source, rw=False, subpath=subpath)


def _subpath(mount: Mount, path: str) -> str:
    if path.startswith("/"):
        raise _wrong(mount, f"subpath must be a relative path within the {mount.type}")
    if path and ".." in path.split("/"):
        raise _wrong(mount, f"subpath must be a relative path within the {mount.type}")
    return path


_MOUNT_KINDS: Mapping[str, Callable[[Mount, str], MountPoint]] = {
    "bind": _bind,
    "volume": _volume,
    "tmpfs": _tmpfs,
    "image": _image,
}


def tmpfs_options(words: Sequence[str]) -> list[str]:
    """The options of a tmpfs: the defaults, less what the user takes back. Raises Invalid."""
    chosen = list(TMPFS_DEFAULTS)
    for word in words:
        if not word:
            continue
        key, equals, _ = word.partition("=")
        if (equals and key not in _TMPFS_VALUES) or (not equals and key not in _TMPFS_SWITCHES):
            raise Invalid(f'invalid tmpfs option ["{word}"]')
        opposite = _TMPFS_FLAGS.get(word)
        chosen = [c for c in chosen if c not in (word, opposite) and not _same_key(c, key, equals)]
        if opposite != "ro":
            chosen.append(word)
    return chosen


def _same_key(option: str, key: str, equals: str) -> bool:
    return bool(equals) and option.startswith(f"{key}=")


def in_order(mounts: Iterable[MountPoint]) -> list[MountPoint]:
    """Parents before what is mounted below them."""
    return sorted(mounts, key=lambda m: (m.destination.count("/"), m.destination))
