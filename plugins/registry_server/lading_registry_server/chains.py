"""Images of 2014: uploads link by link, and the two ways between chains and manifests.

The states of a link: its document is here and it is *uploading*; its layer is here; its checksum
was right, and it is complete for ever. Until then everything about it may be sent again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lading.archive.compression import CHUNK, opened, sniff
from lading.errors import Invalid
from lading.model import legacy, oci
from lading.store.blobs import Blobs
from lading.store.db import Database
from lading_registry_server.manifests import Manifests
from lading_registry_server.repositories import Repositories, Tag

Read = Callable[[int], bytes]

_GZIP_LEVEL = 1
_MEDIA_TYPES = {"gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}


@dataclass(frozen=True, slots=True)
class Link:
    """One image of 2014."""

    id: str
    parent: str
    document: bytes
    layer: str
    payload: str
    diff_id: str
    uploading: int


class Chains:
    """All images of 2014 and their ways from and to manifests; thread safe."""

    def __init__(
        self, db: Database, blobs: Blobs, repositories: Repositories, manifests: Manifests
    ) -> None:
        self._db, self._blobs = db, blobs
        self._repositories, self._manifests = repositories, manifests

    def get(self, image: str) -> Link | None:
        """One link, or None."""
        row = self._db.row(
            "SELECT id, parent, document, layer, payload, diff_id, uploading FROM images "
            "WHERE id = ?",
            image,
        )
        return None if row is None else Link(*row)

    def ancestry(self, image: str) -> list[Link]:
        """The chain below an image, itself first; it ends early where a link is missing."""
        found: list[Link] = []
        seen: set[str] = set()
        while image and image not in seen and (link := self.get(image)) is not None:
            seen.add(image)
            found.append(link)
            image = link.parent
        return found

    # -- uploads

    def put_document(self, image: str, parent: str, document: bytes) -> None:
        """Begin a link, or begin it again."""
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO images VALUES (?, ?, ?, '', '', '', 1, ?) ON CONFLICT (id) DO UPDATE "
                "SET parent = excluded.parent, document = excluded.document, layer = '', "
                "payload = '', diff_id = '', seen = excluded.seen "
                # Two may push the same image at a time: neither takes away what the other sent.
                "WHERE uploading AND document != excluded.document",
                (image, parent, document, time.time()),
            )

    def put_layer(self, link: Link, read: Read) -> None:
        """Take in the layer of a link."""
        payload = hashlib.sha256(link.document + b"\n")
        with self._blobs.writer() as writer:
            while piece := read(CHUNK):
                writer.write(piece)
                payload.update(piece)
            layer = writer.commit()
        with self._db.write() as connection:
            connection.execute(
                "UPDATE images SET layer = ?, payload = ?, diff_id = '', seen = ? "
                "WHERE id = ? AND uploading",
                (layer, f"sha256:{payload.hexdigest()}", time.time(), link.id),
            )

    def complete(self, image: str) -> None:
        """Note that a link's checksum was right."""
        with self._db.write() as connection:
            connection.execute("UPDATE images SET uploading = 0 WHERE id = ?", (image,))

    # -- facts about links that cost a read of the layer, once

    def payload(self, link: Link) -> str:
        """The checksum over document and layer."""
        if link.payload or not link.layer:
            return link.payload
        payload = hashlib.sha256(link.document + b"\n")
        for piece in self._pieces(link.layer):
            payload.update(piece)
        return self._remember("payload", link, f"sha256:{payload.hexdigest()}")

    def diff_id(self, link: Link) -> str:
        """The digest of the uncompressed layer. Raises Invalid for one that is damaged."""
        if link.diff_id:
            return link.diff_id
        found = hashlib.sha256()
        with self._blobs.open(link.layer) as blob:
            source, _ = opened(blob)
            while piece := source.read(CHUNK):
                found.update(piece)
        return self._remember("diff_id", link, f"sha256:{found.hexdigest()}")

    def layer(self, link: Link) -> str:
        """The blob to send for a link: one that programs of 2014 can read."""
        with self._blobs.open(link.layer) as blob:
            if sniff(blob.read(16)) in ("gzip", ""):
                return link.layer
            blob.seek(0)
            source, _ = opened(blob)
            compressed = self._compressed(source.read)
        return self._remember("layer", link, compressed)

    def _compressed(self, read: Read) -> str:
        from isal import isal_zlib  # rarely needed

        compressor = isal_zlib.compressobj(_GZIP_LEVEL, wbits=31)
        with self._blobs.writer() as writer:
            while piece := read(CHUNK):
                writer.write(compressor.compress(piece))
            writer.write(compressor.flush())
            return writer.commit()

    def _pieces(self, digest: str) -> Iterator[bytes]:
        with self._blobs.open(digest) as blob:
            while piece := blob.read(CHUNK):
                yield piece

    def _remember(self, column: str, link: Link, value: str) -> str:
        with self._db.write(durable=False) as connection:
            connection.execute(f"UPDATE images SET {column} = ? WHERE id = ?", (value, link.id))
        return value

    # -- which repositories show a link

    def announce(self, repository: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Merge (id, tag, checksum) into the images of a repository; ids are never dropped, and
        the first checksum stays."""
        with self._db.write() as connection:
            for position, (image, tag, checksum) in enumerate(rows):
                connection.execute(
                    "INSERT INTO members VALUES (?, ?, ?, ?, ?) ON CONFLICT (repository, image) "
                    "DO UPDATE SET tag = CASE WHEN excluded.tag = '' THEN tag ELSE excluded.tag "
                    "END, checksum = CASE WHEN checksum = '' THEN excluded.checksum ELSE checksum "
                    "END",
                    (repository, image, position, tag, checksum),
                )

    def members(self, repository: str) -> list[tuple[str, str, str]]:
        """(id, tag, checksum) of the images of a repository."""
        rows = self._db.rows(
            "SELECT image, tag, checksum FROM members WHERE repository = ? "
            "ORDER BY position, image",
            repository,
        )
        return [(str(i), str(t), str(c)) for i, t, c in rows]

    def repositories_of(self, image: str) -> list[str]:
        """The repositories that show a link."""
        rows = self._db.rows("SELECT repository FROM members WHERE image = ?", image)
        return [str(row[0]) for row in rows]

    # -- from manifests and to them

    def expose(self, repository: str) -> None:
        """Give every tag of a repository that leads to a manifest its chain."""
        for tag in self._repositories.tags(repository):
            self.image_of(repository, tag)

    def image_of(self, repository: str, tag: Tag) -> str:
        """The top of the chain that a tag means; "" when its manifest is of no such image."""
        if tag.image or not tag.digest:
            return tag.image
        try:
            image = self._chain_from(repository, tag.digest)
        except Invalid:
            return ""
        if image:
            self._repositories.complete_tag(repository, tag, image=image)
        return image

    def _chain_from(self, repository: str, digest: str) -> str:
        manifest = self._manifests.image(repository, digest)
        if manifest is None or not self._blobs.has(manifest.config.digest):
            return ""
        chain = legacy.chain_of(self._blobs.read(manifest.config.digest))
        layers = iter(manifest.layers)
        empty = self._blobs.write(legacy.EMPTY_LAYER)
        if sum(1 for link in chain if link.diff_id) != len(manifest.layers):
            return ""
        rows = []
        for link, before in zip(chain, [None, *chain], strict=False):
            layer = next(layers).digest if link.diff_id else empty
            rows.append((link, before.id if before else "", layer))
        with self._db.write() as connection:
            connection.executemany(
                # The ids can be foreseen: what somebody has pushed under one does not stand.
                "INSERT INTO images VALUES (?, ?, ?, ?, '', ?, 0, ?) ON CONFLICT (id) DO UPDATE "
                "SET parent = excluded.parent, document = excluded.document, "
                "layer = excluded.layer, diff_id = excluded.diff_id, payload = '', uploading = 0 "
                "WHERE uploading OR layer != excluded.layer OR document != excluded.document",
                [
                    (link.id, parent, link.document, layer, link.diff_id, time.time())
                    for link, parent, layer in rows
                ],
            )
        self.announce(repository, [(link.id, "", "") for link in chain])
        return str(chain[-1].id)

    def digest_of(self, repository: str, tag: Tag) -> str:
        """The digest of the manifest that a tag means; "" while its chain is not complete."""
        if tag.digest or not tag.image:
            return tag.digest
        try:
            digest = self._manifest_from(repository, tag.image)
        except Invalid:
            return ""
        if digest:
            self._repositories.complete_tag(repository, tag, digest=digest)
        return digest

    def _manifest_from(self, repository: str, image: str) -> str:
        links = self.ancestry(image)[::-1]
        if not links or links[0].parent or any(link.uploading or not link.layer for link in links):
            return ""
        documents = [legacy.decode(link.document) for link in links]
        filled = [
            link
            for link, document in zip(links, documents, strict=True)
            if legacy.has_content(document)
        ]
        config = legacy.config_of(documents, [self.diff_id(link) for link in filled])
        layers = [self._descriptor(link) for link in filled]
        digest = self._blobs.write(config)
        for blob in (digest, *(layer.digest for layer in layers)):
            self._repositories.link(repository, blob)
        manifest = oci.docker_manifest(config, layers)
        return self._manifests.put(repository, oci.DOCKER_MANIFEST, manifest).digest

    def _descriptor(self, link: Link) -> oci.Descriptor:
        with self._blobs.open(link.layer) as blob:
            kind = sniff(blob.read(16))
        media_type = _MEDIA_TYPES.get(kind, oci.LAYER)
        return oci.Descriptor(media_type, link.layer, self._blobs.size(link.layer))
