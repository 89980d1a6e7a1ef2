"""Uploads in the distribution API: whole, in chunks, taken up again, or mounted from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lading.errors import Conflict, NotFound
from lading.http.messages import Request, Response
from lading.http.stream import CHUNK
from lading_registry_server.access import Identity
from lading_registry_server.errors import ApiError
from lading_registry_server.store import Store
from lading_registry_server.uploads import Upload

_RANGE = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/.*)?")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


class BlobUploads:
    """Answers ``/v2/<name>/blobs/uploads/``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(
        self, request: Request, identity: Identity, repository: str, mount: str, source: str
    ) -> Response:
        """``POST``: mount a blob that ``source`` shows, take a whole one, or open a session."""
        self._store.repositories.ensure(repository, identity.user)
        if mount and self._store.repositories.linked(source, mount) and self._here(mount):
            self._store.repositories.link(repository, mount)
            return self._created(repository, mount)
        upload = self._store.uploads.begin(repository)
        if request.query.get("digest"):
            with self._store.uploads.use(upload.session, repository):
                _receive(request, upload)
                return self._finish(upload, request.query.get("digest"))
        return self._progress(202, upload)

    def _here(self, digest: str) -> bool:
        return bool(_SHA256.fullmatch(digest)) and self._store.blobs.has(digest)

    def status(
        self, request: Request, identity: Identity, repository: str, session: str
    ) -> Response:
        """``GET``: how much is here."""
        with _session(self._store, session, repository) as upload:
            return self._progress(204, upload)

    def append(
        self, request: Request, identity: Identity, repository: str, session: str
    ) -> Response:
        """``PATCH``: the next chunk, or all in one stream."""
        with _session(self._store, session, repository) as upload:
            self._check_range(request, upload)
            _receive(request, upload)
            return self._progress(202, upload)

    def finish(
        self, request: Request, identity: Identity, repository: str, session: str
    ) -> Response:
        """``PUT``: the last chunk, which may be empty, and the digest of the whole."""
        with _session(self._store, session, repository) as upload:
            self._check_range(request, upload)
            _receive(request, upload)
            return self._finish(upload, request.query.get("digest"))

    def cancel(
        self, request: Request, identity: Identity, repository: str, session: str
    ) -> Response:
        """``DELETE``: drop what is here."""
        with _session(self._store, session, repository) as upload:
            self._store.uploads.cancel(upload)
        return Response(204)

    def _finish(self, upload: Upload, digest: str) -> Response:
        if not _SHA256.fullmatch(digest):
            reason = "a digest of the form sha256:<hex> is needed"
            raise ApiError("DIGEST_INVALID", "invalid digest", reason)
        if upload.writer.digest != digest:
            found = upload.writer.digest
            self._store.uploads.cancel(upload)
            raise ApiError(
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                {"provided": digest, "computed": found},
            )
        self._store.uploads.commit(upload)
        self._store.repositories.link(upload.repository, digest)
        return self._created(upload.repository, digest)

    def _check_range(self, request: Request, upload: Upload) -> None:
        text = request.headers.get("content-range", "")
        if not text:
            return
        match = _RANGE.fullmatch(text.strip())
        if match is None or int(match[1]) != upload.offset or int(match[2]) < int(match[1]):
            raise ApiError(
                "RANGE_INVALID",
                f'Content-Range "{text}" does not go on at {upload.offset}',
                headers=_headers(upload),
            )
        length = request.headers.get("content-length", "")
        if length and int(length) != int(match[2]) - int(match[1]) + 1:
            raise ApiError("SIZE_INVALID", "Content-Range and Content-Length do not agree")

    def _progress(self, status: int, upload: Upload) -> Response:
        return Response(status, _headers(upload))

    def _created(self, repository: str, digest: str) -> Response:
        headers = {
            "Location": f"/v2/{repository}/blobs/{digest}",
            "Docker-Content-Digest": digest,
        }
        return Response(201, headers)


def _headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.session}",
        "Docker-Upload-UUID": upload.session,
        # The end is included; an empty upload is said to be 0-0 all the same.
        "Range": f"0-{max(upload.offset - 1, 0)}",
    }


def _receive(request: Request, upload: Upload) -> None:
    while piece := request.body.read1(CHUNK):
        upload.writer.write(piece)


@contextmanager
def _session(store: Store, session: str, repository: str) -> Iterator[Upload]:
    """The upload for one request, its errors as the API has them."""
    try:
        with store.uploads.use(session, repository) as upload:
            yield upload
    except NotFound as error:
        raise ApiError("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry") from error
    except Conflict as error:
        raise ApiError("BLOB_UPLOAD_INVALID", str(error), status=409) from error
