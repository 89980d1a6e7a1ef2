"""The volumes of one data root.

On disk: ``<root>/<name>/_data``. A volume with the options ``type``, ``device`` and ``o`` is a
mount, made on ``_data`` when the first container that uses it starts and undone with the last.
The metadata row comes first and goes last, so a crash leaves at worst a row without directory,
which is made again, or a directory that is set aside for removal, which is swept at start.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lading.errors import Conflict, InUse, Invalid, NotFound
from lading.hooks.common import Mount
from lading.linux.mountpoints import is_mounted, unmount_all
from lading.linux.mounts import mount_one
from lading.store.clock import now
from lading.store.db import Database, Schema, encode
from lading.store.events import Events

DRIVER = "local"

#: The label of volumes that nobody has named, as Docker sets it.
ANONYMOUS = "com.docker.volume.anonymous"

SCHEMA = Schema(
    "volumes",
    [
        """
        CREATE TABLE volumes (
            name TEXT PRIMARY KEY, created TEXT NOT NULL, labels TEXT NOT NULL,
            options TEXT NOT NULL
        );
        """
    ],
)

#: It names a directory (NAME_MAX of limits.h).
LONGEST_NAME = 255
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OPTIONS = ("type", "device", "o")
_ASIDE = ".removing-"


class Volume(msgspec.Struct, frozen=True):
    """A volume; ``mountpoint`` is its directory on the host."""

    name: str
    mountpoint: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    driver: str = DRIVER
    scope: str = "local"

    @property
    def anonymous(self) -> bool:
        """Whether nobody has named it."""
        return ANONYMOUS in self.labels


@dataclass(frozen=True, slots=True)
class Pruned:
    """The names that ``prune`` removed and the bytes that this freed."""

    deleted: Sequence[str]
    space: int


class Volumes:
    """All volumes. Methods may be called from any thread."""

    def __init__(self, db: Database, events: Events, root: Path) -> None:
        db.migrate(SCHEMA)
        self._db = db
        self._events = events
        self._root = root
        self._lock = threading.RLock()
        self._users: dict[str, set[str]] = {}
        self._mounted: dict[str, set[str]] = {}
        root.mkdir(mode=0o701, parents=True, exist_ok=True)
        for entry in root.glob(f"{_ASIDE}*"):
            shutil.rmtree(entry, ignore_errors=True)
        self._volumes = {v.name: v for v in self._load()}

    def _load(self) -> Iterable[Volume]:
        for name, created, labels, options in self._db.rows("SELECT * FROM volumes"):
            yield Volume(
                name,
                str(self._root / name / "_data"),
                created,
                msgspec.json.decode(labels),
                msgspec.json.decode(options),
            )

    def create(
        self,
        name: str = "",
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name; "" makes an anonymous one.

        Raises Invalid for a bad name or option, NotFound for an unknown driver, Conflict when
        the volume exists with other options.
        """
        if driver not in ("", DRIVER):
            raise NotFound(
                f'error looking up volume plugin {driver}: plugin "{driver}" not found',
                hint=f"the only volume driver is {DRIVER}",
            )
        marks = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            marks.setdefault(ANONYMOUS, "")
        _check_name(name)
        _check_options(options or {})
        with self._lock:
            if existing := self._volumes.get(name):
                if options and dict(options) != existing.options:
                    raise Conflict(f"volume {name}: exists with other options")
                return existing
            volume = self._insert(name, dict(options or {}), marks)
        self._events.publish("volume", "create", name, {"driver": DRIVER})
        return volume

    def _insert(self, name: str, options: dict[str, str], labels: dict[str, str]) -> Volume:
        volume = Volume(name, str(self._root / name / "_data"), now(), labels, options)
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO volumes VALUES (?, ?, ?, ?)",
                (name, volume.created, encode(labels), encode(options)),
            )
        try:
            self._make_directory(volume)
        except OSError:
            with self._db.write() as connection:
                connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
            raise
        self._volumes[name] = volume
        return volume

    def _make_directory(self, volume: Volume) -> None:
        path = Path(volume.mountpoint)
        path.parent.mkdir(mode=0o701, exist_ok=True)
        path.mkdir(mode=0o755, exist_ok=True)

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[Volume]:
        """By name; filters ``name``, ``driver``, ``label``, ``dangling``. Raises Invalid."""
        given = {k: v for k, v in (filters or {}).items() if v}
        for key in given:
            if key not in ("name", "driver", "label", "dangling"):
                raise Invalid(f"invalid filter '{key}'")
        dangling = _boolean("dangling", given["dangling"]) if "dangling" in given else None
        with self._lock:
            return [
                v
                for _, v in sorted(self._volumes.items())
                if (dangling is None or dangling == (not self._users.get(v.name)))
                and ("name" not in given or any(n in v.name for n in given["name"]))
                and ("driver" not in given or v.driver in given["driver"])
                and all(_has_label(v.labels, wanted) for wanted in given.get("label", ()))
            ]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove it with its content. Raises InUse; NotFound, unless ``force``."""
        with self._lock:
            volume = self._volumes.get(name)
            if volume is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            if users := self._users.get(name):
                raise InUse(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
            # What is mounted there is not the volume's to remove.
            unmount_all(volume.mountpoint)
            aside = self._root / f"{_ASIDE}{secrets.token_hex(8)}"
            if (self._root / name).exists():
                os.rename(self._root / name, aside)
            with self._db.write() as connection:
                connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
            del self._volumes[name]
        shutil.rmtree(aside, ignore_errors=True)
        self._events.publish("volume", "destroy", name, {"driver": DRIVER})

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> Pruned:
        """Remove unused volumes: anonymous ones, with the filter ``all=true`` named ones too.

        Further filters: ``label``, ``label!``. Raises Invalid.
        """
        given = {k: v for k, v in (filters or {}).items() if v}
        for key in given:
            if key not in ("all", "label", "label!"):
                raise Invalid(f"invalid filter '{key}'")
        everything = "all" in given and _boolean("all", given["all"])
        deleted, space = [], 0
        for volume in self.list({"dangling": ["true"]}):
            if not (everything or volume.anonymous):
                continue
            if not all(_has_label(volume.labels, w) for w in given.get("label", ())):
                continue
            if any(_has_label(volume.labels, w) for w in given.get("label!", ())):
                continue
            size = self.size(volume.name)
            try:
                self.remove(volume.name)
            except InUse:
                continue
            deleted.append(volume.name)
            space += size
        self._events.publish("volume", "prune", "", {"reclaimed": str(space)})
        return Pruned(deleted, space)

    def size(self, name: str) -> int:
        """Bytes on disk; walks the directory."""
        total = 0
        for top, _, files in os.walk(self.get(name).mountpoint):
            for file in files:
                try:
                    total += os.lstat(os.path.join(top, file)).st_size
                except FileNotFoundError:
                    continue
        return total

    def users(self, name: str) -> Sequence[str]:
        """The ids of the containers that have it, whether they run or not."""
        with self._lock:
            return sorted(self._users.get(name, ()))

    def acquire(self, name: str, container: str) -> Volume:
        """Note that a container has it, so that it is not removed. Raises NotFound."""
        with self._lock:
            volume = self.get(name)
            self._users.setdefault(name, set()).add(container)
            return volume

    def release(self, name: str, container: str) -> None:
        """Forget that a container has it."""
        with self._lock:
            users = self._users.get(name)
            if users:
                users.discard(container)
                if not users:
                    del self._users[name]

    def mount(self, name: str, container: str) -> Path:
        """Make its content appear at its mountpoint, for a container that is about to start."""
        with self._lock:
            volume = self.get(name)
            self._make_directory(volume)
            users = self._mounted.setdefault(name, set())
            if volume.options and not is_mounted(volume.mountpoint):
                words = tuple(o for o in volume.options.get("o", "").split(",") if o)
                recipe = Mount(volume.options["type"], volume.options["device"], words)
                mount_one(recipe, volume.mountpoint)
            users.add(container)
            return Path(volume.mountpoint)

    def unmount(self, name: str, container: str) -> bool:
        """Undo ``mount`` for one container; false: it was not mounted, and nothing is done."""
        with self._lock:
            users = self._mounted.get(name)
            if users is None or container not in users:
                return False
            users.discard(container)
            if not users:
                del self._mounted[name]
                volume = self._volumes.get(name)
                if volume and volume.options:
                    unmount_all(volume.mountpoint)
            return True

    def unmount_unused(self) -> None:
        """Unmount what an earlier daemon left mounted for containers that have ended since."""
        with self._lock:
            for volume in self._volumes.values():
                if volume.options and volume.name not in self._mounted:
                    unmount_all(volume.mountpoint)


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise Invalid(f"create {name[:20]}...: a volume name has at most {LONGEST_NAME} characters")
    if not _NAME.fullmatch(name) or len(name) < 2:
        raise Invalid(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def _check_options(options: Mapping[str, str]) -> None:
    for option in options:
        if option not in _OPTIONS:
            raise Invalid(f'invalid option: "{option}"', hint=f"valid: {', '.join(_OPTIONS)}")
    if options:
        for option in ("type", "device"):
            if option not in options:
                raise Invalid(f'missing required option: "{option}"')


def _boolean(key: str, values: Sequence[str]) -> bool:
    lowered = {v.lower() for v in values}
    if lowered <= {"1", "true", "t"}:
        return True
    if lowered <= {"0", "false", "f"}:
        return False
    raise Invalid(f"invalid filter '{key}={values[0]}'")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
