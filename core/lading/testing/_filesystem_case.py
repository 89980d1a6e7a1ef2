"""What the tests of the filesystem kit work with: a backend, places to mount, trees to compare."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lading.archive import Archives
from lading.hooks.common import Context, Mount
from lading.hooks.filesystem import Filesystem
from lading.linux import mounts, syscalls
from lading.monitor import Spawner

Factory = Callable[[Context], Any]

#: The extended attributes that overlayfs keeps its own notes in.
_PRIVATE = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True)
class Case:
    """One test's backend, made by the factory on directories of its own."""

    factory: Factory
    context: Context
    backend: Filesystem
    places: Path
    rule: str

    @classmethod
    def make(cls, factory: Factory, root: Path, rule: str, options: Mapping[str, Any]) -> Case:
        """A case below ``root``; skips, saying why, when the host cannot run the backend."""
        for name in ("data", "run", "places"):
            (root / name).mkdir(mode=0o700)
        context = Context("conformance", root / "data", root / "run", options)
        backend = factory(context)
        probe = backend.probe()
        if not probe.usable:
            pytest.skip(f"{probe.reason} ({probe.remedy})")
        return cls(factory, context, backend, root / "places", rule)

    def reopened(self) -> Filesystem:
        """Another backend object on the same directories, as after a restart."""
        backend: Filesystem = self.factory(self.context)
        return backend

    def can(self, capability: str) -> None:
        """Skip unless the backend declares a capability."""
        if capability not in self.backend.capabilities:
            pytest.skip(f'the backend does not declare "{capability}"')

    def expect(self, expected: object, got: object) -> None:
        """Fail with both values and the rule when they differ."""
        assert expected == got, f"expected {expected!r}, got {got!r}; rule: {self.rule}"

    def refused(
        self, kind: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]
    ) -> None:
        """Fail with the rule unless the call raises an error of this kind."""
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        try:
            got = call()
        except kinds:
            return
        except Exception as error:
            raise AssertionError(f"expected {names}, got {error!r}; rule: {self.rule}") from error
        raise AssertionError(f"expected {names}, got {got!r}; rule: {self.rule}")

    @contextmanager
    def mounted(self, recipe: Sequence[Mount], userns: int = -1) -> Iterator[Path]:
        """Show a recipe at a fresh place for the time of the block; mapped for a user namespace."""
        place = self.places / f"m{next(_serial)}"
        place.mkdir()
        mounts.mount_recipe(recipe, place, userns)
        try:
            yield place
        finally:
            _unmount(place)
            place.rmdir()

    @contextmanager
    def active(self, key: str, parent: str = "", **labels: str) -> Iterator[Path]:
        """Prepare a snapshot and show it; it stays, unmounted."""
        with self.mounted(self.backend.prepare(key=key, parent=parent, labels=labels)) as top:
            yield top

    @contextmanager
    def seen(self, parent: str) -> Iterator[Path]:
        """Show a committed snapshot by a view that goes away again."""
        key = f"view-{next(_serial)}"
        recipe = self.backend.view(key=key, parent=parent, labels={})
        try:
            with self.mounted(recipe) as top:
                yield top
        finally:
            self.backend.remove(key=key)

    def commit(self, name: str, parent: str, change: Callable[[Path], object]) -> str:
        """Make a committed snapshot: the parent with a change."""
        key = f"making-{next(_serial)}"
        with self.active(key, parent) as top:
            change(top)
        self.backend.commit(key=key, name=name)
        return name

    def tree(self, name: str) -> dict[str, Any]:
        """What a committed snapshot shows."""
        with self.seen(name) as top:
            return describe(top)


def _unmount(place: Path) -> None:
    """Unmount all that was mounted at a place, one upon the other."""
    while True:
        try:
            syscalls.umount2(str(place), syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            raise


_serial = itertools.count(1)


def describe(top: Path) -> dict[str, Any]:
    """Everything below a directory that a layer can hold, by relative path."""
    found: dict[str, Any] = {}
    links: dict[tuple[int, int], str] = {}
    stack = [os.fsencode(top)]
    root = stack[0]
    while stack:
        at = stack.pop()
        for name in sorted(os.listdir(at)):
            path = at + b"/" + name
            status = os.lstat(path)
            relative = os.fsdecode(path[len(root) + 1 :])
            first = links.setdefault((status.st_dev, status.st_ino), relative)
            found[relative] = _entry(path, status, "" if first == relative else first)
            if stat.S_ISDIR(status.st_mode):
                stack.append(path)
    return found


def _entry(path: bytes, status: os.stat_result, link: str) -> tuple[object, ...]:
    content: object = ""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        content = status.st_rdev
    seconds = 0 if stat.S_ISLNK(status.st_mode) else status.st_mtime_ns // 1_000_000_000
    return (
        stat.filemode(status.st_mode),
        (status.st_uid, status.st_gid),
        seconds,
        content,
        xattrs(path),
        # Which of several names is the first depends on the order of reading only.
        bool(link),
    )


def xattrs(path: bytes | Path) -> dict[str, bytes]:
    """The extended attributes of a file that are its own."""
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(_PRIVATE)
    }


def note(path: Path, value: bytes = b"kept") -> dict[str, bytes]:
    """Give a file an attribute that its filesystem takes; returns what it has now.

    tmpfs has no ``user.`` ones before Linux 6.6.
    """
    for name in ("user.note", "trusted.note"):
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
        else:
            break
    return xattrs(path)


def put(path: Path, text: str = "", mode: int = 0o644) -> Path:
    """Write a file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


class KitBase:
    """Fixtures that every part of the kit has."""

    #: Options of the backend's table in the configuration, to run the kit once per set.
    options: Mapping[str, Any] = {}

    @pytest.fixture
    def factory(self) -> Factory:
        """The maker of the backend: what a subclass must give."""
        raise NotImplementedError("give a fixture `factory` that returns the backend's class")

    @pytest.fixture
    def case(self, factory: Factory, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
        """The test's own backend, and the rule that the test's docstring states."""
        rule = " ".join((request.function.__doc__ or "").split())
        return Case.make(factory, tmp_path, rule, self.options)

    @pytest.fixture(scope="class")
    @classmethod
    def archives(cls) -> Iterator[Archives]:
        """Archive tasks as the engine runs them."""
        spawner = Spawner.launch(preload=["lading.archive.tasks"])
        yield Archives(spawner)
        spawner.close()
