"""What the archive tasks do, each in a forked process with a mount namespace of its own.

A task function gets JSON arguments and descriptors, and returns JSON. Before a name from an
archive, an image or a user is touched, the process is changed into the root that it belongs to;
after that nothing is imported and no user database is read: such files would be the container's.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lading.archive import compression, differ, implied, pack
from lading.archive.mirror import Mirror, disagreements
from lading.archive.path_stat import describe
from lading.archive.reader import Reader
from lading.archive.unpack import DIGEST_ROW, NeedsParent, Options, Unpacker
from lading.errors import Denied, Invalid, LadingError, NotFound, Unavailable
from lading.hooks.common import Mount
from lading.hooks.filesystem import Whiteouts
from lading.linux import mounts, paths, syscalls

Args = Mapping[str, Any]
Json = dict[str, Any]

#: Where :func:`_enter_both` shows what.
_LOWER, _UPPER, _LAYER = b"/lower", b"/upper", b"/layer"

#: What an engine mounts over in every root: (path, kind or link target).
INIT = (
    ("dev/pts", "directory"), ("dev/shm", "directory"), ("dev/console", "file"),
    ("proc", "directory"), ("sys", "directory"), ("etc/hosts", "file"),
    ("etc/hostname", "file"), ("etc/resolv.conf", "file"), (".dockerenv", "file"),
    ("etc/mtab", "/proc/mounts"),
)  # fmt: skip


def apply(args: Args, fds: Sequence[int]) -> Json:
    """Unpack a layer on the mounted root; with ``init`` the mount points are there afterwards."""
    source, digest = _opened(fds[0])
    _enter(args)
    unpacker = Unpacker(Options())
    done = _unpack(unpacker, Reader(source, digest), digest)
    if args["init"]:
        _make_init()
    return done


def apply_directory(args: Args, fds: Sequence[int]) -> Json | None:
    """Unpack a layer into a layer directory; None when its parent has to be seen."""
    source, digest = _opened(fds[0])
    os.chdir(args["directory"])
    os.chroot(".")
    _seal()
    # Without a parent there is nothing to delete, and nothing to write down.
    form = Whiteouts(args["whiteouts"]) if args["alone"] else None
    unpacker = Unpacker(Options(whiteouts=form, alone=args["alone"]))
    try:
        found = _unpack(unpacker, Reader(source, digest), digest)
    except NeedsParent:
        return None
    for name, left in (("implied", unpacker.implied), ("whiteouts", unpacker.whiteouts)):
        found[name] = [os.fsdecode(path) for path in left]
    return found


def adopt(args: Args, fds: Sequence[int]) -> bool:
    """Settle what depends on the parent of a layer directory."""
    with _new_root() as top:
        mounts.mount_one(Mount("tmpfs", "tmpfs", ("mode=700",)), top)
        layer = [Mount("bind", args["directory"], ("rbind",))]
        for place, recipe in ((_LOWER, _recipe(args["parent"])), (_LAYER, layer)):
            os.mkdir(top + os.fsdecode(place))
            mounts.mount_recipe(recipe, top + os.fsdecode(place))
    implied.forget(_LOWER, _LAYER, map(os.fsencode, args["whiteouts"]))
    return implied.adopt(_LOWER, _LAYER, map(os.fsencode, args["implied"]))


def digest(args: Args, fds: Sequence[int]) -> Json:
    """Read a layer to its end."""
    source, total = _opened(fds[0])
    reader = Reader(source, total)
    size = entries = 0
    for entry in reader:
        size += entry.real_size
        entries += 1
    reader.drain()
    return {
        "diff_id": f"sha256:{total.hexdigest()}",
        "length": reader.total,
        "size": size,
        "entries": entries,
    }


def changes(args: Args, fds: Sequence[int]) -> list[list[Any]]:
    """List differences."""
    paths = _paths(args, fds)
    _enter_both(args)
    return [
        ["/" + os.fsdecode(d.path), d.kind]
        for d in sorted(_differences(args, paths), key=lambda d: d.path)
    ]


def diff(args: Args, fds: Sequence[int]) -> Json:
    """Write differences as a layer."""
    digest = hashlib.sha256()
    writer = pack.Writer(fds[0], digest, args["latest"])
    size = entries = 0
    paths = _paths(args, fds)
    _enter_both(args)

    def counted() -> Iterator[differ.Difference]:
        nonlocal entries, size
        for difference in _differences(args, paths):
            entries += 1
            if difference.status is not None and stat.S_ISREG(difference.status.st_mode):
                size += difference.status.st_size
            yield difference

    differ.write_layer(writer, _LAYER if args["layer"] else _UPPER, counted())
    writer.close()
    return _packed(writer, f"sha256:{digest.hexdigest()}", size, entries)


def carry(args: Args, fds: Sequence[int]) -> Json:
    """Make the tree ``upper`` like ``lower``, prove that it is, and write it to disk."""
    _enter_both(args)
    mirror = Mirror(_LOWER, _UPPER)
    mirror.carry()
    wrong = list(itertools.islice(disagreements(_LOWER, _UPPER), 3))
    if wrong:
        raise LadingError(f"the copy is not like the original: {'; '.join(wrong)}")
    top = os.open(_UPPER, os.O_RDONLY | os.O_DIRECTORY)
    syscalls.syncfs(top)
    os.close(top)
    return {"entries": mirror.copied, "size": mirror.size}


def export(args: Args, fds: Sequence[int]) -> Json:
    """Write the whole tree."""
    _enter(args)
    writer = pack.Writer(fds[0])
    size = entries = 0
    # In a running container's root, what is mounted there is not of the root itself.
    for relative, status in pack.walk(b".", same_device=bool(args["pid"])):
        try:
            writer.add_path(b"./" + relative, relative, status)
        except FileNotFoundError:
            continue
        entries += 1
        size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    writer.close()
    return _packed(writer, "", size, entries)


def _packed(writer: pack.Writer, digest: str, size: int, entries: int) -> Json:
    return {"digest": digest, "length": writer.total, "size": size, "entries": entries}


def stat_path(args: Args, fds: Sequence[int]) -> Json:
    """Look at a path."""
    _enter(args)
    return describe(args["path"])[0]


def copy_out(args: Args, fds: Sequence[int]) -> Json:
    """Write a path and what is below it."""
    _enter(args)
    found, place = describe(args["path"])
    name = os.fsencode(found["name"]) if found["name"] != "/" else b""
    writer = pack.Writer(fds[0])
    writer.add_path(place, name)
    if stat.S_ISDIR(os.lstat(place).st_mode):
        for relative, status in pack.walk(place):
            writer.add_path(place + b"/" + relative, posixpath.join(name, relative), status)
    writer.close()
    return found


def copy_in(args: Args, fds: Sequence[int]) -> None:
    """Unpack into a directory."""
    source, _ = _opened(fds[0])
    _enter(args)
    try:
        os.chdir(args["path"])
    except FileNotFoundError as error:
        raise NotFound(f"Could not find the file {args['path']} in container") from error
    except NotADirectoryError as error:
        raise Invalid("extraction point is not a directory") from error
    if os.statvfs(".").f_flag & os.ST_RDONLY:
        raise Denied("container rootfs is marked read-only")
    owner = args["owner"]
    options = Options(
        plain=True,
        keep_directories=args["keep_kinds"],
        owner=(owner[0], owner[1]) if owner else None,
    )
    Unpacker(options).run(Reader(source))


def unpack_hashed(args: Args, fds: Sequence[int]) -> None:
    """Unpack into a directory of the host; to the second descriptor goes each file's digest."""
    source, _ = _opened(fds[0])
    os.chdir(args["directory"])
    os.chroot(".")
    _seal()
    digests: dict[int, bytes] = {}
    Unpacker(Options(plain=True, digests=digests)).run(Reader(source))
    with open(fds[1], "wb", closefd=False) as out:
        for row in digests.items():
            out.write(DIGEST_ROW.pack(*row))


def touch_init(args: Args, fds: Sequence[int]) -> None:
    """Make mount points. Links on the way there, such as those that systemd makes for
    ``/etc/resolv.conf``, give way: they may lead to nothing."""
    _enter(args)
    _make_init()


def _make_init() -> None:
    os.umask(0)
    for path, kind in INIT:
        above = posixpath.dirname(path)
        if above:
            _only_directory(above)
        if kind == "directory":
            _only_directory(path)
        elif kind == "file":
            if not stat.S_ISREG(_kind(path)):
                _unlink(path)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755))
        else:
            _unlink(path)
            os.symlink(kind, path)


def drop_mount_points(args: Args, fds: Sequence[int]) -> None:
    """Remove what was made to mount on."""
    _enter_both(args)
    with (
        paths.opened_root(os.fsdecode(_LOWER)) as lower,
        paths.opened_root(os.fsdecode(_UPPER)) as upper,
    ):
        for place in args["places"]:
            path = os.fsencode(place).strip(b"/")
            while path and not paths.exists(lower, path) and _drop_empty(upper, path):
                path = posixpath.dirname(path)


def _drop_empty(root: int, path: bytes) -> bool:
    try:
        above, name = paths.open_parent(root, path)
    except OSError:
        return True
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(name, dir_fd=above)
        elif stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(name, dir_fd=above)
        else:
            return False
    except FileNotFoundError:
        return True
    except OSError:
        # The command has put something into it.
        return False
    finally:
        os.close(above)
    return True


def _kind(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _only_directory(path: str) -> None:
    if not stat.S_ISDIR(_kind(path)):
        _unlink(path)
        os.mkdir(path, 0o755)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _opened(descriptor: int) -> tuple[compression.Source, Any]:
    source, _ = compression.opened(compression.Descriptor(descriptor))
    return source, hashlib.sha256()


def _unpack(unpacker: Unpacker, reader: Reader, digest: Any) -> Json:
    unpacker.run(reader)
    return {
        "diff_id": f"sha256:{digest.hexdigest()}",
        "length": reader.total,
        "size": unpacker.size,
        "entries": unpacker.entries,
    }


def _recipe(rows: Sequence[Any]) -> list[Mount]:
    return [Mount(kind, source, tuple(options), to) for kind, source, options, to in rows]


def _enter(args: Args) -> None:
    """Change into the root that the arguments describe, and make it this process's root."""
    own_users = os.stat("/proc/self/ns/user")
    if args["pid"]:
        place = f"/proc/{args['pid']}"
        try:
            users = os.open(f"{place}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            # Stays open: what is mounted there then stays also when the container ends.
            os.open(f"{place}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            os.chdir(f"{place}/root")
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Unavailable(f"process {args['pid']} has ended") from error
        os.chroot(".")
        os.chdir("/")
        _seal()
        if not os.path.samestat(os.fstat(users), own_users):
            # Owners are then seen, and given, as the container has them.
            syscalls.setns(users, syscalls.CLONE_NEWUSER)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.close(users)
        return
    with _new_root() as top:
        mounts.mount_recipe(_recipe(args["rootfs"]), top)
        with paths.opened_root(top) as root:
            for source, target, read_only in args["binds"]:
                _bind(root, source, target, read_only=read_only)


def _seal() -> None:
    """Import nothing any more: modules would be looked for in the container (CVE-2019-14271)."""
    sys.meta_path.clear()


@contextmanager
def _new_root() -> Iterator[str]:
    """A directory to mount on, which becomes this process's root when the block ends."""
    top = tempfile.mkdtemp(prefix="lading-root-")
    above = os.open(os.path.dirname(top), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield top
        os.chdir(top)
        _seal()
        # The root itself is exchanged: a mount point that is taken away while only the working
        # directory is inside would lose the mounts below it.
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", syscalls.MNT_DETACH)
        os.chdir("/")
    finally:
        try:
            os.rmdir(os.path.basename(top), dir_fd=above)
        except OSError:
            # Something is mounted there still, since a step failed: it goes with this process.
            pass
        os.close(above)


def _bind(root: int, source: str, target: str, *, read_only: bool) -> None:
    if os.path.isdir(source):
        place = paths.make_directories(root, target)
    else:
        place = paths.make_file(root, target)
    try:
        options = ("rbind", "ro") if read_only else ("rbind",)
        mounts.mount_one(Mount("bind", source, options), place)
    finally:
        os.close(place)


def _enter_both(args: Args) -> None:
    """Make a root that shows both trees and the layer directory, and nothing of the host.

    A container may be running in them: were it to exchange a directory for a link while that is
    walked, the link would lead to nothing here.
    """
    with _new_root() as top:
        mounts.mount_one(Mount("tmpfs", "tmpfs", ("mode=700",)), top)
        layer = [Mount("bind", args["layer"], ("rbind", "ro"))] if args["layer"] else []
        recipes = (
            (_LOWER, _recipe(args["lower"])),
            (_UPPER, _recipe(args["upper"])),
            (_LAYER, layer),
        )
        for place, recipe in recipes:
            os.mkdir(top + os.fsdecode(place))
            mounts.mount_recipe(recipe, top + os.fsdecode(place))


def _paths(args: Args, fds: Sequence[int]) -> differ.Names | None:
    """The paths that the caller names as those that may differ."""
    if not args["paths"]:
        return None
    with open(os.dup(fds[-1]), "rb") as file:
        return differ.names(file.read().split(b"\0"))


def _differences(args: Args, paths: differ.Names | None) -> Iterator[differ.Difference]:
    if args["layer"]:
        form = Whiteouts(args["whiteouts"])
        return differ.in_layer(_LAYER, form, _LOWER if args["lower"] else b"")
    return differ.compare(_LOWER, _UPPER, paths)
