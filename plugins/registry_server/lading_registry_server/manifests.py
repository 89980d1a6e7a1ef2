"""Manifests and indexes of the distribution API: checked, kept as they came, listed by subject."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lading.model import oci
from lading.store.blobs import Blobs
from lading.store.db import Database
from lading_registry_server.errors import ApiError
from lading_registry_server.repositories import Repositories

IMAGES = (oci.MANIFEST, oci.DOCKER_MANIFEST)
INDEXES = (oci.INDEX, oci.DOCKER_INDEX)
LARGEST = 4 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest that a repository has."""

    digest: str
    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: str = "{}"


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    urls: list[str] = []


class _Body(msgspec.Struct, rename="camel"):
    """The members that images and indexes may have, as far as a registry looks at them."""

    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None


class Manifests:
    """All manifests; thread safe."""

    def __init__(self, db: Database, blobs: Blobs, repositories: Repositories) -> None:
        self._db, self._blobs, self._repositories = db, blobs, repositories

    def get(self, repository: str, digest: str) -> Stored | None:
        """A manifest of the repository by its digest, or None."""
        row = self._db.row(
            "SELECT digest, media_type, size, subject, artifact_type, annotations FROM manifests "
            "WHERE repository = ? AND digest = ?",
            repository,
            digest,
        )
        return None if row is None else Stored(*row)

    def content(self, digest: str) -> bytes:
        """The bytes of a manifest that is here."""
        return self._blobs.read(digest)

    def put(self, repository: str, media_type: str, content: bytes) -> Stored:
        """Check and keep a manifest. Raises ApiError for what is wrong with it."""
        body = _checked(media_type, content)
        media_type = media_type or body.media_type
        self._check_references(repository, body)
        digest = self._blobs.write(content)
        artifact_type = body.artifact_type or (body.config.media_type if body.config else "")
        stored = Stored(
            digest, media_type, len(content),
            body.subject.digest if body.subject else "",
            artifact_type,
            msgspec.json.encode(body.annotations or {}).decode(),
        )  # fmt: skip
        self._repositories.ensure(repository)
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type",
                (
                    repository, digest, media_type, stored.size, stored.subject, artifact_type,
                    stored.annotations, time.time(),
                ),
            )  # fmt: skip
        return stored

    def _check_references(self, repository: str, body: _Body) -> None:
        blobs = [row for row in (body.config, *(body.layers or ())) if row is not None]
        for row in blobs:
            # A layer with URLs of its own is fetched from there and may be missing here.
            if not row.urls and not self._repositories.linked(repository, row.digest):
                raise ApiError(
                    "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", {"digest": row.digest}
                )
        for row in body.manifests or ():
            if self.get(repository, row.digest) is None:
                raise ApiError(
                    "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry", {"digest": row.digest}
                )

    def remove(self, repository: str, digest: str) -> bool:
        """Remove a manifest and the tags that lead to it; whether it was there."""
        with self._db.write() as connection:
            gone = connection.execute(
                "DELETE FROM manifests WHERE repository = ? AND digest = ?", (repository, digest)
            )
            connection.execute(
                "DELETE FROM tags WHERE repository = ? AND digest = ?", (repository, digest)
            )
            return bool(gone.rowcount)

    def referrers(self, repository: str, subject: str, artifact_type: str) -> Sequence[Stored]:
        """The manifests that name a subject."""
        rows = self._db.rows(
            "SELECT digest, media_type, size, subject, artifact_type, annotations FROM manifests "
            "WHERE repository = ? AND subject = ? AND (? = '' OR artifact_type = ?) "
            "ORDER BY added, digest",
            repository, subject, artifact_type, artifact_type,
        )  # fmt: skip
        return [Stored(*row) for row in rows]

    def all(self) -> Iterator[tuple[str, Stored]]:
        """Every manifest with its repository."""
        for row in self._db.rows(
            "SELECT repository, digest, media_type, size, subject, artifact_type, annotations "
            "FROM manifests"
        ):
            yield str(row[0]), Stored(*row[1:])

    def image(self, repository: str, digest: str) -> oci.Manifest | None:
        """The image manifest under a digest; of an index, its first Linux image for this world's
        most common machine. None when there is no such thing."""
        stored = self.get(repository, digest)
        for _ in range(4):
            if stored is None:
                return None
            if stored.media_type in IMAGES:
                return oci.decode_manifest(self.content(stored.digest))
            chosen = preferred(oci.decode_index(self.content(stored.digest)).manifests)
            stored = self.get(repository, chosen.digest) if chosen else None
        return None


def preferred(rows: Sequence[oci.Descriptor]) -> oci.Descriptor | None:
    """The entry of an index for those who know no indexes: linux/amd64, as other registries do."""
    for row in rows:
        platform = row.platform
        if platform and (platform.os, platform.architecture) == ("linux", "amd64"):
            return row
    return None


def references(content: bytes) -> list[str]:
    """The digests that a manifest needs to be whole."""
    body: Any = msgspec.json.decode(content, type=_Body)
    rows = [body.config, *(body.layers or ()), *(body.manifests or ())]
    return [row.digest for row in rows if row is not None]


def _checked(media_type: str, content: bytes) -> _Body:
    try:
        body = msgspec.json.decode(content, type=_Body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ApiError("MANIFEST_INVALID", "manifest invalid", str(error)) from error
    kind = media_type or body.media_type
    if kind not in (*IMAGES, *INDEXES):
        raise ApiError("MANIFEST_INVALID", "manifest invalid", f'unknown media type "{kind}"')
    if body.media_type and body.media_type != kind:
        reason = f'Content-Type is "{kind}", mediaType "{body.media_type}"'
        raise ApiError("MANIFEST_INVALID", "manifest invalid", reason)
    if body.schema_version != 2:
        raise ApiError("MANIFEST_INVALID", "manifest invalid", "schemaVersion must be 2")
    needed = (
        body.manifests is not None if kind in INDEXES else body.config and body.layers is not None
    )
    if not needed:
        raise ApiError("MANIFEST_INVALID", "manifest invalid", "a required member is missing")
    return body
