"""Which image an instruction has led to before, by content, and what may go of that."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lading.images import Image, Images
from lading.store.db import Database, Schema

SCHEMA = Schema(
    "build",
    (
        "CREATE TABLE build_cache (key TEXT PRIMARY KEY, image TEXT NOT NULL, used REAL NOT NULL)",
        """
        DROP TABLE build_cache;
        CREATE TABLE build_cache (
            key TEXT PRIMARY KEY, image TEXT NOT NULL, parent TEXT NOT NULL,
            description TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL,
            uses INTEGER NOT NULL
        );
        CREATE INDEX build_cache_by_image ON build_cache (image);
        """,
    ),
)


def key_of(parent: str, *parts: str) -> str:
    """The key of an instruction on an image."""
    text = "\0".join((parent, *parts))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One step's result, or (``kind`` exec.cachemount) a cache directory of RUN.

    ``size`` is that of its own layer, times are in seconds. ``shared``: an image with a name, or
    one that a container or a build uses, needs it; for a directory, that a build uses it.
    """

    id: str
    parent: str
    description: str
    size: int
    shared: bool
    created: float
    used: float
    uses: int
    kind: str = "regular"


class Cache:
    """The cache of one daemon; thread safe."""

    def __init__(self, db: Database, images: Images) -> None:
        self._db, self._images = db, images
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        db.migrate(SCHEMA)

    def get(self, key: str) -> str:
        """The image's id, "" when there is none, or it is gone."""
        row = self._db.row(
            "SELECT image FROM build_cache JOIN images ON images.id = image WHERE key = ?", key
        )
        return str(row[0]) if row else ""

    def put(self, key: str, image: str, parent: str, description: str) -> None:
        """Remember an image."""
        now = time.time()
        with self._db.write(durable=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?, ?, ?, ?, 0)",
                (key, image, parent, description, now, now),
            )

    @contextmanager
    def held(self) -> Iterator[Callable[[str], None]]:
        """Gives what a build calls with each image that it stands on: they stay while it runs.

        Afterwards they count as used at this time.
        """
        mine: set[str] = set()

        def hold(image: str) -> None:
            with self._lock:
                if image not in mine:
                    mine.add(image)
                    self._held[image] += 1

        try:
            yield hold
        finally:
            with self._lock:
                self._held.subtract(mine)
                self._held = +self._held
            now = time.time()
            with self._db.write(durable=False) as connection:
                connection.executemany(
                    "UPDATE build_cache SET used = ?, uses = uses + 1 WHERE image = ?",
                    [(now, image) for image in mine],
                )

    def holds(self, image: str) -> bool:
        """Whether a build that runs stands on an image."""
        with self._lock:
            return image in self._held

    def records(self) -> list[Record]:
        """All of the cache whose images are here, the least recently used first."""
        rows = self._db.rows(
            "SELECT image, max(b.parent), max(description), min(created), max(used), max(uses) "
            "FROM build_cache b JOIN images ON images.id = image GROUP BY image ORDER BY max(used)"
        )
        images = {image.id: image for image in self._images.list(all=True)}
        shared = self._shared(images)
        found = []
        for image_id, parent, description, created, used, uses in rows:
            image = images.get(image_id)
            if image is not None:
                size = _own_size(image, images.get(image.parent))
                found.append(
                    Record(
                        image_id, parent, description, size, image_id in shared,
                        created, used, uses,
                    )
                )  # fmt: skip
        return found

    def _shared(self, images: dict[str, Image]) -> set[str]:
        found: set[str] = set()
        for image in images.values():
            if image.repo_tags or image.repo_digests or self._images.users(image.id):
                at: Image | None = image
                while at is not None and at.id not in found:
                    found.add(at.id)
                    at = images.get(at.parent)
        return found

    def prune(
        self,
        chosen: Callable[[Record], bool],
        *,
        all: bool = False,
        keep: int = 0,
        beside: int = 0,
    ) -> tuple[list[str], int]:
        """Forget what is chosen and needed by nobody, the least recently used first, until no more
        than ``keep`` bytes are left, with ``beside`` of others; ids and bytes.

        ``all``: what is needed is forgotten too, though its images stay.
        """
        records = self.records()
        before = self._images.layers_size()
        total = beside + sum(record.size for record in records if not record.shared)
        children = Counter(image.parent for image in self._images.list(all=True))
        gone: list[str] = []
        # Children first: an image with others on top of it cannot go.
        waiting = [r for r in records if not r.shared and chosen(r)]
        while waiting and (total > keep or not keep):
            leaf = next((r for r in waiting if not children[r.id]), None)
            if leaf is None:
                break
            waiting.remove(leaf)
            gone.append(leaf.id)
            children[self._parent(leaf.id)] -= 1
            total -= leaf.size
        forgotten = gone + [r.id for r in records if all and r.shared and chosen(r)]
        with self._db.write() as connection:
            connection.executemany(
                "DELETE FROM build_cache WHERE image = ?", [(image,) for image in forgotten]
            )
            if all and not keep:
                # Keys whose images have gone by other ways.
                connection.execute(
                    "DELETE FROM build_cache WHERE image NOT IN (SELECT id FROM images)"
                )
        self._images.discard(gone)
        return gone, max(0, before - self._images.layers_size())

    def _parent(self, image: str) -> str:
        return self._images.get(image).parent


def _own_size(image: Image, parent: Image | None) -> int:
    own: Sequence[int] = [max(layer.size, 0) for layer in image.layers]
    return sum(own[len(parent.layers) if parent else 0 :])
