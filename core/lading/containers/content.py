"""What is in a container's root: differences, export, copies in and out, commit."""

from __future__ import annotations

import itertools
import os
import posixpath
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol, TypeVar

import msgspec

from lading.archive import Bind, Change, Hint, PathStat, Root
from lading.archive.piped import piped
from lading.containers import merge, roots, tell
from lading.containers.execs import is_exiting
from lading.containers.options import CommitOptions
from lading.containers.parts import Parts
from lading.containers.records import Container, Size, Status
from lading.containers.table import Live, Table
from lading.containers.users import Users
from lading.errors import Conflict, Denied, NotFound, Unavailable
from lading.hooks.common import Mount
from lading.hooks.filesystem import LayerDirectory
from lading.images import Image, NewLayer
from lading.model.docker import ContainerConfig
from lading.operations import carried

CHUNK = 1 << 16

#: How long the end of a container may take that somebody wants to read.
ENDING_SECONDS = 10.0

Result = TypeVar("Result")

_serial = itertools.count(1)


class Readable(Protocol):
    """A stream as the API has it."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class Content:
    """Reads and writes roots through tasks."""

    def __init__(self, parts: Parts, table: Table, users: Users) -> None:
        self._parts = parts
        self._table = table
        self._users = users

    def size(self, record: Container) -> Size:
        """Bytes of the container's own layer and of its whole root."""
        if roots.in_place(record):
            return Size(0, 0)
        usage = self._parts.filesystems.get(record.filesystem).hook.usage(key=record.id)
        if not record.image:
            return Size(usage.size, usage.size)
        try:
            image = self._parts.images.get(record.image).size
        except NotFound:
            image = 0
        return Size(usage.size, usage.size + image)

    def changes(self, record: Container) -> Sequence[Change]:
        """What differs from the image."""
        with self._compared(record) as (lower, upper, layer):
            return self._parts.archives.changes(lower, upper, layer)

    @contextmanager
    def _compared(
        self, record: Container
    ) -> Iterator[tuple[Sequence[Mount], Sequence[Mount], Hint | None]]:
        """The image's root, the container's, and what the backend knows of the differences."""
        roots.check_comparable(record)
        hint = roots.hint(self._parts, record)
        with roots.below(self._parts, record) as lower:
            # A running overlay must not be mounted a second time, and need not be: its changes
            # all lie in its layer.
            alone = isinstance(hint, LayerDirectory)
            yield lower, () if alone else roots.recipe(self._parts, record), hint

    @contextmanager
    def _root(self, record: Container, *, volumes: bool = True) -> Iterator[Root]:
        """The root as the container sees it, whether it runs or not, with or without volumes."""
        if record.state.running:
            yield Root(pid=record.state.pid)
            return
        parts = self._parts
        with ExitStack() as stack:
            binds = []
            user = f"{record.id}-copy-{next(_serial)}"
            for mount in record.mounts if volumes else ():
                source = mount.source
                if mount.type == "volume" and not mount.subpath:
                    source = str(parts.volumes.mount(mount.name, user))
                    stack.callback(parts.volumes.unmount, mount.name, user)
                elif mount.type != "bind":
                    continue
                if os.path.exists(source):
                    binds.append(Bind(source, mount.destination, not mount.rw))
            yield Root(roots.recipe(parts, record), binds)

    def _with_root(
        self, record: Container, work: Callable[[Root], Result], *, volumes: bool = True
    ) -> Result:
        """Do something with the root, also of a container that is just ending."""
        try:
            with self._root(record, volumes=volumes) as root:
                return work(root)
        except Unavailable:
            # A task that finds the process gone has not done anything yet.
            ended = self._ended(record)
            if ended is None:
                raise
        with self._root(ended, volumes=volumes) as root:
            return work(root)

    def _ended(self, record: Container) -> Container | None:
        """The container when the end of its process has been dealt with; None if there is none."""
        live = self._table.lookup(record.id)
        if not record.state.running or live is None or not is_exiting(record.state.pid):
            return None

        def is_over() -> bool:
            return live.record.state.pid != record.state.pid and not live.ending

        with live.settled:
            live.settled.wait_for(is_over, ENDING_SECONDS)
        return live.record if is_over() else None

    def stat(self, record: Container, path: str) -> PathStat:
        """Look at one path."""
        return self._with_root(record, lambda root: self._parts.archives.stat(root, _path(path)))

    def get(self, record: Container, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """One path as a tar stream."""
        found = self.stat(record, path)
        archives = self._parts.archives
        chunks = self._stream(record, lambda root, out: archives.copy_out(root, _path(path), out))
        tell.event(self._parts.events, record, "archive-path")
        return found, chunks

    def export(self, record: Container) -> Iterator[bytes]:
        """The whole root as a tar stream."""
        chunks = self._stream(record, self._parts.archives.export, volumes=False)
        tell.event(self._parts.events, record, "export")
        return chunks

    def _stream(
        self, record: Container, write: Callable[[Root, int], object], *, volumes: bool = True
    ) -> Iterator[bytes]:
        """What a task writes of the root."""

        def run(sink: int) -> None:
            self._with_root(record, lambda root: write(root, sink), volumes=volumes)

        return piped(run)

    def put(
        self,
        live: Live,
        path: str,
        stream: Readable,
        *,
        no_overwrite_dir_nondir: bool,
        copy_uidgid: bool,
    ) -> None:
        """Unpack a tar stream into a directory."""
        record = live.record
        _check_writable(record, _path(path))
        owner = self._owner(record) if copy_uidgid else None
        source, sink = os.pipe2(os.O_CLOEXEC)
        errors: list[Exception] = []

        def run() -> None:
            try:
                self._with_root(
                    record,
                    lambda root: self._parts.archives.copy_in(
                        root,
                        _path(path),
                        source,
                        keep_kinds=no_overwrite_dir_nondir,
                        owner=owner,
                    ),
                )
            except Exception as error:
                errors.append(error)
            finally:
                os.close(source)

        thread = threading.Thread(target=carried(run), name="archive", daemon=True)
        thread.start()
        try:
            _pump(stream, sink)
        finally:
            os.close(sink)
            thread.join()
        if errors:
            raise errors[0]
        self._touched(live)
        tell.event(self._parts.events, record, "extract-to-dir")

    def _owner(self, record: Container) -> tuple[int, int] | None:
        """Whose the files become with ``cp -a``: the container's user's, if it has one."""
        if not record.config.user:
            return None
        if record.state.running:
            user = self._users.in_running(record, record.config.user)
        else:
            user = self._users.of(record)
        return user.uid, user.gid

    def _touched(self, live: Live) -> None:
        """Note that the root may differ from the image's by now."""
        with live.lock:
            if not live.record.touched:
                self._table.save(live, msgspec.structs.replace(live.record, touched=True))

    def commit(self, live: Live, options: CommitOptions) -> Image:
        """Make an image of it; see :meth:`lading.containers.Containers.commit`."""
        parts, record = self._parts, live.record
        if record.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"cannot commit container {record.id}: it is marked for removal")
        roots.check_committable(record)
        config = merge.merged(options.config or ContainerConfig(), record.config)
        settings, own = merge.committed_settings(config, record.config)
        with self._frozen(record, wanted=options.pause), self._compared(record) as compared:
            lower, upper, layer = compared
            image = parts.images.commit(
                self._parent(record),
                settings,
                lower,
                upper,
                layer,
                repo=options.repo,
                tag=options.tag,
                changes=options.changes,
                created_by=" ".join([record.path, *record.args]),
                author=options.author,
                comment=options.comment,
                container=record.id,
                container_config=own,
            )
        tell.event(parts.events, record, "commit", imageID=image.id, imageRef=_reference(options))
        return image

    def _mounts(self, record: Container) -> Sequence[Mount]:
        return self._parts.filesystems.get(record.filesystem).hook.mounts(key=record.id)

    def settle(
        self, live: Live, *, keep: bool, latest: int | None, mount_points: Sequence[str]
    ) -> NewLayer | None:
        """See :meth:`lading.containers.Containers.settle`."""
        parts, record = self._parts, live.record
        with self._compared(record) as (lower, upper, directory):
            if mount_points:
                whole = upper or self._mounts(record)
                parts.archives.drop_mount_points(lower, whole, mount_points)
            layer = parts.images.layer(lower, upper, directory, latest=latest)
        # Times that were moved are moved only in the layer.
        if layer is not None and not keep and latest is None:
            diffs = [la.diff_id for la in parts.images.get(record.image).layers]
            known = self._users.unchanged(record)
            name = parts.images.unpacking.adopt(
                [*diffs, layer.diff_id], record.filesystem, record.id
            )
            self._users.remember(record.filesystem, name, known)
        return layer

    def _parent(self, record: Container) -> Image | None:
        try:
            return self._parts.images.get(record.image)
        except NotFound:
            # Removed by force, while its layers still carry this container.
            return None

    @contextmanager
    def _frozen(self, record: Container, *, wanted: bool) -> Iterator[None]:
        """Let nothing be written meanwhile."""
        backend = self._parts.isolations.get(record.isolation)
        if not wanted or record.state.status is not Status.RUNNING:
            yield
            return
        backend.require("pause")
        isolated = self._parts.isolated(record.id)
        try:
            backend.hook.pause(container=isolated)
        except NotFound:
            yield  # it has just ended by itself
            return
        try:
            yield
        finally:
            with suppress(NotFound):  # killed meanwhile
                backend.hook.resume(container=isolated)


def _reference(options: CommitOptions) -> str:
    if not options.repo:
        return ""
    return f"{options.repo}:{options.tag or 'latest'}"


def _path(path: str) -> str:
    """A path of a request; those without a slash count from the root. The end is kept."""
    return path if path.startswith("/") else f"/{path}"


def _check_writable(record: Container, path: str) -> None:
    """Raises Denied where the container could not write by itself."""
    target = f"{posixpath.normpath(path)}/"
    above = [m for m in record.mounts if target.startswith(f"{m.destination}/")]
    best = max(above, key=lambda m: len(m.destination), default=None)
    if best is not None and not best.rw:
        raise Denied("mounted volume is marked read-only")
    if best is None and record.host_config.readonly_rootfs:
        raise Denied("container rootfs is marked read-only")


def _pump(stream: Readable, sink: int) -> None:
    while data := stream.read(CHUNK):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(sink, view) :]
        except BrokenPipeError:
            # The task has ended early; its error says why.
            return
