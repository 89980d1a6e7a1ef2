"""An image store on a scratch root, with real backends and tasks."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from lading import backends
from lading.archive import Archives
from lading.hooks.filesystem import LayerDirectories
from lading.images import Image, Images
from lading.images.removal import User
from lading.linux import mounts, syscalls
from lading.monitor import Spawner
from lading.store.blobs import Blobs
from lading.store.db import Database
from lading.store.events import Events


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    started = Spawner.launch(preload=["lading.archive.tasks"])
    yield started
    started.close()


class Store:
    """Images as a daemon has them, and what a user does with them."""

    def __init__(self, root: Path, spawner: Spawner) -> None:
        self.root, self._spawner = root, spawner
        self.users: dict[str, list[User]] = {}
        self.events = Events()
        self.filesystems: backends.Backends[Any] = backends.load(
            "filesystem", backends.contexts_under(root, root / "run", "filesystem", {})
        )
        usable = self.filesystems.usable()
        # One that several layers can be unpacked on at a time, where the host has such.
        usable.sort(key=lambda b: "layer-directory" not in b.capabilities)
        self.filesystems.default = usable[0].name
        self.blobs = Blobs(root / "blobs")
        self.reopen()

    def reopen(self) -> None:
        """What a restart of the daemon does."""
        self.db = Database(self.root / "metadata.db")
        self.images = Images(
            self.db, self.blobs, self.filesystems, Archives(self._spawner), self.events
        )
        self.images.users = lambda image_id: self.users.get(image_id, [])
        self.images.start()

    def load(self, data: bytes) -> list[str]:
        return list(self.images.load(io.BytesIO(data), lambda message: None))

    def save(self, *refs: str) -> bytes:
        return b"".join(self.images.save(refs))

    def make(self, repo: str, *files: str, changes: Sequence[str] = ()) -> Image:
        """Import an image that holds some files, each with its name for content."""
        return self.images.import_(io.BytesIO(tar(*files)), repo=repo, changes=changes)

    def commit(
        self, parent: Image, change: Callable[[Path], object], repo: str = "", **options: Any
    ) -> Image:
        """Change a container of an image, and commit it."""
        backend = self.filesystems.get()
        base = self.images.snapshot_for(parent)
        key = f"c{len(list(backend.hook.walk()))}"
        upper = backend.hook.prepare(key=key, parent=base, labels={})
        with self.mounted(upper) as top:
            change(top)
        lower = backend.hook.view(key=f"{key}-lower", parent=base, labels={})
        layer = None
        if "layer-directory" in backend.capabilities:
            layer = cast(LayerDirectories, backend.hook).layer_directory(key=key)
        try:
            return self.images.commit(
                parent, dict(parent.config.config or {}), lower, upper, layer, repo=repo, **options
            )
        finally:
            backend.hook.remove(key=f"{key}-lower")
            backend.hook.remove(key=key)

    def mounted(self, recipe: Sequence[Any]) -> _Mounted:
        return _Mounted(self.root / "mnt", recipe)

    def files(self, image: Image, filesystem: str = "") -> dict[str, str]:
        """The regular files that a container of the image sees, with content; no mount points."""
        backend = self.filesystems.get(filesystem)
        base = self.images.snapshot_for(image, filesystem)
        recipe = backend.hook.view(key="look", parent=base, labels={})
        try:
            with self.mounted(recipe) as top:
                return {
                    str(p.relative_to(top)): p.read_text()
                    for p in sorted(top.rglob("*"))
                    if p.is_file() and p.stat().st_size
                }
        finally:
            backend.hook.remove(key="look")

    def seen(self) -> list[tuple[str, Mapping[str, str]]]:
        subscription = self.events.subscribe(since=0, until=time.time_ns())
        return [(e.action, e.attributes) for e in subscription]

    def snapshots(self) -> set[str]:
        return {s.key for s in self.filesystems.get().hook.walk()}


class _Mounted:
    def __init__(self, place: Path, recipe: Sequence[Any]) -> None:
        self._place, self._recipe, self._stack = place, recipe, ExitStack()

    def __enter__(self) -> Path:
        self._place.mkdir(exist_ok=True)
        mounts.mount_recipe(self._recipe, self._place)
        return self._place

    def __exit__(self, *_: object) -> None:
        syscalls.umount2(str(self._place), syscalls.MNT_DETACH)


@pytest.fixture
def store(tmp_path: Path, spawner: Spawner) -> Store:
    return Store(tmp_path, spawner)


def tar(*files: str, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files whose content is their name; names that end in a slash are directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for name in files:
            entry = tarfile.TarInfo(name.rstrip("/"))
            content = b"" if "/.wh." in f"/{name}" else name.encode()
            if name.endswith("/"):
                entry.type, entry.mode, content = tarfile.DIRTYPE, 0o755, b""
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive(members: Mapping[str, bytes]) -> bytes:
    """A tar with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
