"""The image store's tables: images, their layers, and the names that lead to them.

Names are kept canonical. The config of an image is the blob of its id; a layer row names a blob.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lading.errors import Conflict, NotFound
from lading.images.records import Image, Layer, NewLayer
from lading.model import oci, reference
from lading.store.blobs import Blobs
from lading.store.clock import now
from lading.store.db import Database, Schema

SCHEMA = Schema(
    "images",
    [
        """
        CREATE TABLE images (
            id TEXT PRIMARY KEY, parent TEXT NOT NULL, last_tagged TEXT NOT NULL, added REAL
        );
        CREATE TABLE layers (
            diff_id TEXT PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL,
            size INTEGER NOT NULL, length INTEGER NOT NULL
        );
        CREATE TABLE image_layers (
            image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            position INTEGER NOT NULL, diff_id TEXT NOT NULL, chain_id TEXT NOT NULL,
            PRIMARY KEY (image, position)
        );
        CREATE INDEX image_layers_by_diff ON image_layers (diff_id);
        CREATE INDEX image_layers_by_chain ON image_layers (chain_id);
        CREATE TABLE names (
            name TEXT PRIMARY KEY, is_digest INTEGER NOT NULL,
            image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
        );
        CREATE INDEX names_by_image ON names (image);
        CREATE TABLE compressed (
            diff_id TEXT NOT NULL, media_type TEXT NOT NULL, digest TEXT NOT NULL,
            size INTEGER NOT NULL, PRIMARY KEY (diff_id, digest)
        );
        """,
        """
        -- Layers of protocols without digests: what a registry's key led to.
        CREATE TABLE fetched (
            key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, digest TEXT NOT NULL,
            media_type TEXT NOT NULL, size INTEGER NOT NULL, length INTEGER NOT NULL
        );
        """,
    ],
)


class Catalog:
    """Reads and writes the tables; thread safe."""

    def __init__(self, db: Database, blobs: Blobs) -> None:
        self._db, self._blobs = db, blobs
        db.migrate(SCHEMA)
        # A config never changes under its id.
        self._config = lru_cache(maxsize=512)(blobs.read)

    def find(self, text: str) -> str:
        """The id of an image by name, digest or (a prefix of its) id. Raises NotFound, Conflict."""
        try:
            named = reference.parse(text).with_default_tag()
        except Exception:
            named = None
        if named is not None:
            for name in (named.canonical, named.with_digest(named.digest).canonical):
                if row := self._db.row("SELECT image FROM names WHERE name = ?", name):
                    return str(row[0])
        if reference.is_id(text):
            prefix = "sha256:" + text.removeprefix("sha256:")
            rows = self._db.rows(
                "SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2", prefix, prefix + "g"
            )
            if len(rows) > 1:
                raise Conflict(f"image id prefix {text} is ambiguous")
            if rows:
                return str(rows[0][0])
        shown = named.familiar if named is not None else text
        raise NotFound(f"No such image: {shown}")

    def get(self, image_id: str) -> Image:
        """An image by its whole id. Raises NotFound."""
        row = self._db.row("SELECT parent, last_tagged FROM images WHERE id = ?", image_id)
        if row is None:
            raise NotFound(f"No such image: {image_id}")
        layers = self._db.rows(
            "SELECT l.diff_id, i.chain_id, l.digest, l.media_type, l.size, l.length "
            "FROM image_layers i JOIN layers l ON l.diff_id = i.diff_id "
            "WHERE i.image = ? ORDER BY i.position",
            image_id,
        )
        names = self._db.rows(
            "SELECT name, is_digest FROM names WHERE image = ? ORDER BY name", image_id
        )
        shown = [(reference.unfamiliar(name).familiar, bool(kind)) for name, kind in names]
        return Image(
            image_id,
            self._config(image_id),
            tuple(Layer(*layer) for layer in layers),
            tuple(name for name, is_digest in shown if not is_digest),
            tuple(name for name, is_digest in shown if is_digest),
            row[0],
            row[1],
        )

    def ids(self) -> list[str]:
        """All images, the newest last."""
        return [str(row[0]) for row in self._db.rows("SELECT id FROM images ORDER BY added")]

    def names(self) -> list[tuple[str, str]]:
        """All (canonical tag name, image id)."""
        rows = self._db.rows("SELECT name, image FROM names WHERE NOT is_digest ORDER BY name")
        return [(str(n), str(i)) for n, i in rows]

    def add(
        self,
        config_bytes: bytes,
        layers: Sequence[NewLayer],
        parent: str = "",
        names: Iterable[str] = (),
    ) -> str:
        """Register an image whose blobs are here, durably; returns its id.

        ``names`` are canonical; each leads to this image from now on.
        """
        image_id = self._blobs.write(config_bytes)
        chain = oci.chain_ids([layer.diff_id for layer in layers])
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO images VALUES (?, ?, '', julianday('now')) "
                "ON CONFLICT (id) DO UPDATE SET added = excluded.added",
                (image_id, parent),
            )
            for position, (layer, chain_id) in enumerate(zip(layers, chain, strict=True)):
                self._add_layer(connection, layer)
                connection.execute(
                    "INSERT INTO image_layers VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (image_id, position, layer.diff_id, chain_id),
                )
            for name in names:
                self._point(connection, name, image_id)
        return image_id

    def _add_layer(self, connection: sqlite3.Connection, layer: NewLayer) -> None:
        connection.execute(
            "INSERT INTO layers VALUES (?, ?, ?, ?, ?) ON CONFLICT (diff_id) DO UPDATE SET "
            "size = max(size, excluded.size), length = max(length, excluded.length)",
            (layer.diff_id, layer.digest, layer.media_type, layer.size, layer.length),
        )

    def measured(self, diff_id: str, size: int, length: int) -> None:
        """Remember what unpacking a layer has found out."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "UPDATE layers SET size = ?, length = ? WHERE diff_id = ?", (size, length, diff_id)
            )

    def _point(self, connection: sqlite3.Connection, name: str, image_id: str) -> None:
        is_digest = "@" in name
        connection.execute(
            "INSERT INTO names VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET image = excluded.image",
            (name, is_digest, image_id),
        )
        if not is_digest:
            connection.execute("UPDATE images SET last_tagged = ? WHERE id = ?", (now(), image_id))

    def point(self, name: str, image_id: str) -> None:
        """Let a canonical name lead to an image."""
        with self._db.write() as connection:
            self._point(connection, name, image_id)

    def unpoint(self, names: Iterable[str]) -> None:
        """Remove names."""
        with self._db.write() as connection:
            for name in names:
                connection.execute("DELETE FROM names WHERE name = ?", (name,))

    def canonical_names(self, image_id: str) -> list[str]:
        """All names of an image, as stored."""
        rows = self._db.rows("SELECT name FROM names WHERE image = ? ORDER BY name", image_id)
        return [str(row[0]) for row in rows]

    def children(self, image_id: str) -> list[str]:
        """The images that were made from this one here."""
        rows = self._db.rows("SELECT id FROM images WHERE parent = ?", image_id)
        return [str(row[0]) for row in rows]

    def drop(self, image_id: str) -> None:
        """Forget an image; its blobs and snapshots are then garbage, unless others have them."""
        with self._db.write() as connection:
            connection.execute("DELETE FROM images WHERE id = ?", (image_id,))
            connection.execute(
                "DELETE FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)"
            )
            for table in ("compressed", "fetched"):
                connection.execute(
                    f"DELETE FROM {table} WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)"
                )

    def chains(self) -> set[str]:
        """The chain IDs of all layers of all images."""
        return {str(r[0]) for r in self._db.rows("SELECT DISTINCT chain_id FROM image_layers")}

    def layer(self, diff_id: str) -> Layer | None:
        """A layer that some image has."""
        row = self._db.row(
            "SELECT l.diff_id, '', l.digest, l.media_type, l.size, l.length FROM layers l "
            "WHERE l.diff_id = ?",
            diff_id,
        )
        return None if row is None else Layer(*row)

    def layer_by_digest(self, digest: str) -> Layer | None:
        """A layer by its blob."""
        row = self._db.row("SELECT diff_id FROM layers WHERE digest = ?", digest)
        return None if row is None else self.layer(str(row[0]))

    def fetched(self, key: str) -> NewLayer | None:
        """The layer that a registry's key led to; its blob may be gone."""
        row = self._db.row(
            "SELECT diff_id, digest, media_type, size, length FROM fetched WHERE key = ?", key
        )
        return None if row is None else NewLayer(*row)

    def remember_fetched(self, key: str, layer: NewLayer) -> None:
        """Note what a registry's key led to."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?, ?, ?)",
                (key, layer.diff_id, layer.digest, layer.media_type, layer.size, layer.length),
            )

    def repositories_with(self, diff_id: str) -> list[str]:
        """The canonical names, without tags, of the repositories that a layer's images were pulled
        from or pushed to."""
        rows = self._db.rows(
            "SELECT DISTINCT n.name FROM names n JOIN image_layers i ON i.image = n.image "
            "WHERE i.diff_id = ? AND n.is_digest ORDER BY n.name",
            diff_id,
        )
        return sorted({str(row[0]).rpartition("@")[0] for row in rows})

    def remember_compressed(self, diff_id: str, descriptor: oci.Descriptor) -> None:
        """Note which compressed blob a layer became when it was pushed."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "INSERT INTO compressed VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (diff_id, descriptor.media_type, descriptor.digest, descriptor.size),
            )

    def compressed(self, diff_id: str) -> list[oci.Descriptor]:
        """The compressed forms that a layer was pushed in."""
        rows = self._db.rows(
            "SELECT media_type, digest, size FROM compressed WHERE diff_id = ?", diff_id
        )
        return [oci.Descriptor(*row) for row in rows]

    def with_blob(self, digest: str) -> list[str]:
        """The images that need a layer's blob."""
        rows = self._db.rows(
            "SELECT DISTINCT i.image FROM image_layers i JOIN layers l ON l.diff_id = i.diff_id "
            "WHERE l.digest = ?",
            digest,
        )
        return [str(row[0]) for row in rows]

    def referenced_blobs(self) -> set[str]:
        """The digests of all blobs that some image needs."""
        found = {str(r[0]) for r in self._db.rows("SELECT id FROM images")}
        found |= {str(r[0]) for r in self._db.rows("SELECT digest FROM layers")}
        rows = self._db.rows("SELECT name FROM names WHERE is_digest")
        return found | {str(r[0]).rpartition("@")[2] for r in rows}
