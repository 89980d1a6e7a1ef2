"""The registry of 2014 (``/v1/images/``): documents, ancestries, layers and checksums by id."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import Any

from lading.errors import Invalid
from lading.http.messages import FileResponse, Request, Response
from lading.http.stream import CHUNK
from lading.model import legacy
from lading_registry_server import ranges
from lading_registry_server.access import PULL, PUSH, BadCredentials, Identity
from lading_registry_server.chains import Link
from lading_registry_server.errors import LegacyError
from lading_registry_server.layer_files import listing
from lading_registry_server.legacy_reply import CACHED, NO_CACHE, reply
from lading_registry_server.store import Store

LARGEST_DOCUMENT = 16 << 20
_ROUTE = re.compile(r"/v1/images/([^/]+)/(json|layer|checksum|ancestry|files|diff)/?")
_AGENT = re.compile(r"([^\s/]+)/(\S+)")
#: What of a pusher's User-Agent is shown, by its name there.
_AGENT_FIELDS = {
    "docker": "docker_version",
    "go": "docker_go_version",
    "arch": "arch",
    "os": "os",
    "kernel": "kernel",
}

Handler = Callable[[Request, Identity, str], Response]


class Registry:
    """Answers ``/v1/images/``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "json"): self._get_json,
            ("PUT", "json"): self._put_json,
            ("GET", "layer"): self._get_layer,
            ("PUT", "layer"): self._put_layer,
            ("PUT", "checksum"): self._put_checksum,
            ("GET", "ancestry"): self._get_ancestry,
            ("GET", "files"): self._get_files,
            ("GET", "diff"): self._get_diff,
        }

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        match = _ROUTE.fullmatch(request.path)
        method = "GET" if request.method == "HEAD" else request.method
        handler = self._routes.get((method, match[2])) if match else None
        if match is None or handler is None:
            raise LegacyError(404 if match is None else 405, "Not found")
        identity = self._store.access.identify(request)
        if method == "GET" and match[2] != "diff" and "if-modified-since" in request.headers:
            # Before anything is looked up: what has an id never changes.
            return Response(304, dict(CACHED))
        image = match[1]
        if not legacy.is_legacy_id(image):
            raise LegacyError(404, "Invalid image ID")
        self._require(identity, image, PULL if method == "GET" else PUSH)
        return handler(request, identity, image)

    def _require(self, identity: Identity, image: str, action: str) -> None:
        """An image may be read and written by those who may one of its repositories."""
        access = self._store.access
        if access.users is None:
            return
        found = self._store.chains.repositories_of(image)
        if any(access.allowed(identity, repository, action) for repository in found):
            return
        if found or action == PUSH:
            if identity.granted is not None and action == PUSH:
                raise LegacyError(400, "This image does not belong to the repository")
            headers = {"WWW-Authenticate": 'Basic realm="auth required", Token'}
            raise LegacyError(401, "Requires authorization", {**NO_CACHE, **headers})

    def _complete(self, image: str) -> Link:
        link = self._store.chains.get(image)
        if link is None:
            raise LegacyError(404, "Image not found")
        if link.uploading:
            raise LegacyError(400, "Image is being uploaded, retry later")
        return link

    # -- reading

    def _get_json(self, request: Request, identity: Identity, image: str) -> Response:
        link = self._complete(image)
        headers = {"Content-Type": "application/json", **CACHED}
        size = self._store.blobs.size(self._store.chains.layer(link)) if link.layer else -1
        headers["X-Docker-Size"] = str(size)
        headers["X-Docker-Checksum-Payload"] = self._store.chains.payload(self._complete(image))
        return Response(200, headers, link.document)

    def _get_ancestry(self, request: Request, identity: Identity, image: str) -> Response:
        self._complete(image)
        chain = self._store.chains.ancestry(image)
        return reply([link.id for link in chain], headers=CACHED)

    def _get_layer(self, request: Request, identity: Identity, image: str) -> Response:
        link = self._complete(image)
        digest = self._store.chains.layer(link)
        size = self._store.blobs.size(digest)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **CACHED}
        try:
            wanted = ranges.parse(request.headers.get("range", ""), size, suffixes=False)
        except ValueError:
            # Clients of 2014 ask once more when all is there, and take just this for the end.
            return Response(416, {**headers, "Content-Length": "0"})
        blob = self._store.blobs.open(digest)
        if wanted is None:
            return FileResponse(200, headers, file=blob, size=size)
        start, length = wanted
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
        return FileResponse(206, headers, file=blob, offset=start, size=length)

    def _get_files(self, request: Request, identity: Identity, image: str) -> Response:
        link = self._complete(image)
        rows = listing(self._store.blobs.open(link.layer))
        try:
            first = next(rows)
        except Invalid as error:
            raise LegacyError(400, "Layer format not supported") from error
        headers = {"Content-Type": "application/json", **CACHED}
        return Response(200, headers, chain([first], rows))

    def _get_diff(self, request: Request, identity: Identity, image: str) -> Response:
        raise LegacyError(400, "Diff queue is disabled")

    # -- writing

    def _put_json(self, request: Request, identity: Identity, image: str) -> Response:
        content = request.body.read(LARGEST_DOCUMENT + 1)
        if len(content) > LARGEST_DOCUMENT:
            raise LegacyError(413, "Invalid JSON")
        try:
            document = legacy.decode(content)
        except Invalid as error:
            raise LegacyError(400, "Invalid JSON") from error
        if "id" not in document:
            raise LegacyError(400, "Missing key `id' in JSON")
        if document["id"] != image:
            raise LegacyError(400, "JSON data contains invalid id")
        parent = str(document.get("parent") or "")
        if parent and self._store.chains.get(parent) is None:
            raise LegacyError(400, "Image depends on a non existing parent")
        if parent and not self._readable(identity, parent):
            raise LegacyError(400, "Image depends on an unauthorized parent")
        known = self._store.chains.get(image)
        if known is not None and not known.uploading:
            raise LegacyError(409, "Image already exists")
        self._store.chains.put_document(image, parent, content)
        return reply(True)

    def _readable(self, identity: Identity, image: str) -> bool:
        try:
            self._require(identity, image, PULL)
        except (LegacyError, BadCredentials):
            return False
        return True

    def _put_layer(self, request: Request, identity: Identity, image: str) -> Response:
        link = self._store.chains.get(image)
        if link is None:
            raise LegacyError(404, "Image not found")
        if not link.uploading:
            raise LegacyError(409, "Image already exists")
        self._store.chains.put_layer(link, lambda size: request.body.read1(CHUNK))
        return reply(True)

    def _put_checksum(self, request: Request, identity: Identity, image: str) -> Response:
        checksum = request.headers.get("x-docker-checksum-payload")
        if checksum is None:
            raise LegacyError(412, "X-Docker-Checksum-Payload not set")
        if not checksum:
            raise LegacyError(400, "Missing Image's checksum")
        link = self._store.chains.get(image)
        if link is None:
            raise LegacyError(404, "Image not found")
        if not link.uploading:
            raise LegacyError(409, "Cannot set this image checksum")
        if not link.layer or checksum != link.payload:
            raise LegacyError(400, "Checksum mismatch")
        self._store.chains.complete(image)
        return reply(True)


def pusher(agent: str) -> dict[str, Any]:
    """What a User-Agent tells of the program that pushed."""
    found = dict(_AGENT.findall(agent))
    shown: dict[str, Any] = {"last_update": None}
    return shown | {shown: found.get(name) for name, shown in _AGENT_FIELDS.items()}
