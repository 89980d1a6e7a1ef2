"""Which image an instruction has led to before, by content."""

from __future__ import annotations

import hashlib
import time

from lading.errors import LadingError
from lading.images import Images
from lading.store.db import Database, Schema

SCHEMA = Schema(
    "build",
    ("CREATE TABLE build_cache (key TEXT PRIMARY KEY, image TEXT NOT NULL, used REAL NOT NULL)",),
)


def key_of(parent: str, *parts: str) -> str:
    """The key of an instruction on an image."""
    text = "\0".join((parent, *parts))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class Cache:
    """The cache of one daemon; thread safe."""

    def __init__(self, db: Database, images: Images) -> None:
        self._db, self._images = db, images
        db.migrate(SCHEMA)

    def get(self, key: str) -> str:
        """The image's id, "" when there is none, or it is gone."""
        row = self._db.row(
            "SELECT image FROM build_cache JOIN images ON images.id = image WHERE key = ?", key
        )
        return str(row[0]) if row else ""

    def put(self, key: str, image: str) -> None:
        """Remember an image."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?)", (key, image, time.time())
            )

    def prune(self) -> tuple[list[str], int]:
        """Forget all, and remove the images that only the cache has kept; ids and bytes."""
        before = self._images.layers_size()
        rows = self._db.rows("SELECT DISTINCT image FROM build_cache")
        with self._db.write() as connection:
            connection.execute("DELETE FROM build_cache")
        deleted = []
        for image_id in {str(row[0]) for row in rows}:
            try:
                image = self._images.get(image_id)
                if image.repo_tags or self._images.catalog.children(image_id):
                    continue
                done = self._images.remove(image_id)
            except LadingError:
                # In use, or gone with its child.
                continue
            deleted += [row.deleted for row in done if row.deleted]
        return deleted, max(0, before - self._images.layers_size())
