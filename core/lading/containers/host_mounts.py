"""Images and containers that are shown, read-only, at a directory of the host.

::

    <exec-root>/mounts/<object>/root     a container's root, writable, for its next start
    <exec-root>/mounts/<object>/view     where it is shown unless the user names a directory

A row is written before anything is mounted and goes after everything is unmounted, so that a crash
leaves nothing which the next start of the daemon does not find.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import msgspec

from lading.backends import Loaded
from lading.containers import roots
from lading.containers.parts import Parts
from lading.containers.records import Container, HostMount
from lading.containers.table import Live
from lading.errors import Conflict, Invalid, LadingError, NotFound, Unsupported
from lading.hooks.filesystem import Filesystem
from lading.linux import syscalls
from lading.linux.mountpoints import is_mounted, unmount_all
from lading.roots.mounted import to_wire
from lading.store.clock import now
from lading.store.db import Schema

log = logging.getLogger(__name__)

SCHEMA = Schema(
    "host_mounts", ["CREATE TABLE host_mounts (target TEXT PRIMARY KEY, record TEXT NOT NULL);"]
)
EXPOSE = "lading.roots.exposed:expose"
IMAGE, CONTAINER = "image", "container"

#: Keys of the views that images are shown by.
_KEY = "mount-"


class HostMounts:
    """Mounts and unmounts; thread safe. Whoever shows a container holds its lock."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.RLock()
        parts.db.migrate(SCHEMA)
        decoder = msgspec.json.Decoder(HostMount)
        for (record,) in parts.db.rows("SELECT record FROM host_mounts"):
            found = decoder.decode(record)
            parts.host_mounts[found.target] = found

    def all(self) -> list[HostMount]:
        """What is shown, and where."""
        return sorted(self._parts.host_mounts.values(), key=lambda m: m.created)

    def of(self, object_id: str) -> list[HostMount]:
        """Where one image or container is shown."""
        return [m for m in self.all() if m.object == object_id]

    def show_image(self, ref: str, target: str) -> HostMount:
        """Show an image. Raises NotFound, Invalid (the directory), Conflict (it is taken)."""
        parts = self._parts
        image = parts.images.get(ref)
        backend = parts.images.default_filesystem()
        with self._lock:
            place, own = self._target(image.id, target)
            if (there := parts.host_mounts.get(place)) and there.object == image.id:
                return there
            made = HostMount(
                place, IMAGE, image.id, ref, backend.name, f"{_KEY}{uuid4().hex}", own, now()
            )
            with ExitStack() as undo:
                self._begin(made, undo)
                parent = parts.images.unpacking.unpacked(image, backend)
                recipe = backend.hook.view(key=made.key, parent=parent, labels={})
                self._mount(made, {"rootfs": to_wire(recipe), "keep": False}, ())
                undo.pop_all()
            # Only now does a root have to be taken from there.
            parts.host_mounts[place] = made
        return made

    def show_container(self, live: Live, target: str) -> HostMount:
        """Show a container, whether it runs or not; as :meth:`show_image`."""
        parts, record = self._parts, live.record
        if parts.id_maps(record.host_config)[0]:
            raise Unsupported(
                f"mount container {record.name}: its files belong to the ids of its user namespace"
            )
        with self._lock:
            place, own = self._target(record.id, target)
            for there in self.of(record.id):
                if not target or there.target == place:
                    return there
                raise Conflict(f"container {record.name} is mounted on {there.target} already")
            made = HostMount(
                place, CONTAINER, record.id, record.name, record.filesystem, "", own, now()
            )
            with ExitStack() as undo:
                self._begin(made, undo)
                self._mount_container(record, made)
                undo.pop_all()
            # Only now does a root have to be taken from there.
            parts.host_mounts[place] = made
        return made

    def _mount_container(self, record: Container, made: HostMount) -> None:
        args = {"rootfs": [], "keep": True}
        if not record.state.running:
            args["rootfs"] = to_wire(roots.recipe(self._parts, record))
            self._mount(made, args, ())
            return
        inside = os.open(f"/proc/{record.state.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._mount(made, args, (inside,))
        finally:
            os.close(inside)

    def _target(self, object_id: str, target: str) -> tuple[str, bool]:
        """Where to show, and whether that is a place of ours."""
        if not target:
            place = self._place(object_id) / "view"
            return str(place), True
        if not target.startswith("/"):
            raise Invalid(f'mount on "{target}": an absolute path is needed')
        real = os.path.realpath(target)
        if not os.path.isdir(real):
            raise Invalid(f'mount on "{target}": no such directory')
        for own in (self._parts.data_root, self._parts.exec_root):
            if Path(real).is_relative_to(os.path.realpath(own)):
                raise Invalid(f'mount on "{target}": that directory is the engine\'s own')
        there = self._parts.host_mounts.get(real)
        if there is not None and there.object != object_id:
            raise Conflict(f"{there.kind} {there.name} is mounted on {real}")
        return real, False

    def _place(self, object_id: str) -> Path:
        return roots.shown_at(self._parts, object_id).parent

    def _begin(self, made: HostMount, undo: ExitStack) -> None:
        parts = self._parts
        with parts.db.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO host_mounts VALUES (?, ?)",
                (made.target, msgspec.json.encode(made).decode()),
            )
        undo.callback(self._forget, made)
        undo.callback(self._clear, made)
        place = self._place(made.object)
        place.parent.mkdir(mode=0o711, exist_ok=True)
        place.mkdir(mode=0o711, exist_ok=True)
        (place / "root").mkdir(mode=0o700, exist_ok=True)
        if made.own:
            Path(made.target).mkdir(mode=0o700, exist_ok=True)

    def _mount(self, made: HostMount, args: dict[str, object], inside: tuple[int, ...]) -> None:
        hidden = self._place(made.object) / "root"
        host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = {**args, "hidden": str(hidden), "target": made.target}
            task = self._parts.spawner.task(EXPOSE, words, [host, *inside])
            try:
                task.wait()
            finally:
                task.close()
        except OSError as error:
            raise LadingError(f"mount {made.kind} {made.name}: {error}") from error
        finally:
            os.close(host)

    def hide(self, object_id: str, what: str, *, force: bool) -> list[HostMount]:
        """Unmount every place of an object. Raises NotFound, Conflict when one is in use."""
        with self._lock:
            found = self.of(object_id)
            if not found:
                raise NotFound(f"{what} is not mounted")
            for made in found:
                self._unmount(made, force=force)
                self._clear(made)
                self._forget(made)
        return found

    def release(self, container_id: str) -> None:
        """Unmount a container that goes away by itself."""
        with self._lock:
            for made in self.of(container_id):
                self._clear(made)
                self._forget(made)

    def _unmount(self, made: HostMount, *, force: bool) -> None:
        try:
            syscalls.umount2(made.target, syscalls.MNT_DETACH if force else 0)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Conflict(
                    f"{made.kind} {made.name}: {made.target} is in use",
                    hint="leave it, or unmount with --force",
                ) from error
            # Somebody has unmounted it by hand, or removed the directory.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise

    def _clear(self, made: HostMount) -> None:
        """Take away all that may be there; may be repeated."""
        place = self._place(made.object)
        unmount_all(made.target)
        others = [m for m in self.of(made.object) if m.target != made.target]
        if not others:
            unmount_all(place / "root")
            unmount_all(place / "view")
            shutil.rmtree(place, ignore_errors=True)
        if made.key:
            try:
                self._parts.filesystems.get(made.filesystem).hook.remove(key=made.key)
            except NotFound:
                pass

    def _forget(self, made: HostMount) -> None:
        with self._parts.db.write() as connection:
            connection.execute("DELETE FROM host_mounts WHERE target = ?", (made.target,))
        self._parts.host_mounts.pop(made.target, None)

    def recover(self) -> None:
        """At daemon start: keep what is shown still, finish or undo what is not."""
        for made in self.all():
            if not is_mounted(made.target):
                try:
                    self._clear(made)
                except Exception:
                    log.exception("clear the mount of %s %s", made.kind, made.name)
                    continue
                self._forget(made)
        known = {made.key for made in self.all()}

        def forgotten(backend: Loaded[Filesystem]) -> None:
            for snapshot in list(backend.hook.walk()):
                if snapshot.key.startswith(_KEY) and snapshot.key not in known:
                    backend.hook.remove(key=snapshot.key)

        self._parts.filesystems.each(forgotten, at_start=True)
