"""The backend object: the registry contract in terms of the protocols of 2014."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from lading.errors import (
    Denied,
    Invalid,
    LadingError,
    NotFound,
    Unauthorized,
    Unsupported,
)
from lading.hooks import Context, Probe, hookimpl
from lading.hooks.registry import (
    OutgoingImage,
    OutgoingLayer,
    PushedLayer,
    Remote,
    RemoteImage,
    RemoteLayer,
    RemoteManifest,
    SearchResult,
    Stream,
)
from lading.model import legacy, oci
from lading_registry_v1.layers import IncomingLayer, Payload
from lading_registry_v1.push import Push
from lading_registry_v1.session import Session, document_of

#: Chains were at most 127 links long at the time; a few more do no harm.
LONGEST_CHAIN = 1024


class RegistryV1:
    """Registry and Index v1."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"search", "delete", "ordered-push"})

    def __init__(self, context: Context) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._payloads: dict[tuple[str, str], Payload] = {}
        self._pushes: dict[tuple[str, str], Push] = {}

    @hookimpl
    def probe(self) -> Probe:
        """Needs nothing but its library."""
        return Probe(usable=True, version=version("urllib3"))

    @hookimpl
    def ping(self, remote: Remote) -> bool:
        """``GET /v1/_ping``."""
        session = Session(remote)
        try:
            return bool(session.index)
        finally:
            session.close()

    @hookimpl
    def login(self, remote: Remote) -> str:
        """``GET /v1/users/``; where the index knows no such user, he is made if it allows that."""
        session = Session(remote)
        try:
            session.ask_index("GET", "users/")
        except Denied as error:
            if not isinstance(error, Unauthorized):
                raise Denied(f"{error.message}: the account is not active") from error
            self._sign_up(session, remote, error)
        finally:
            session.close()
        return ""

    def _sign_up(self, session: Session, remote: Remote, refused: Unauthorized) -> None:
        credentials = remote.credentials
        wrong = Unauthorized(
            f"login attempt to {session.index} failed: incorrect username or password"
        )
        if credentials is None:
            raise refused
        body = {"username": credentials.username, "password": credentials.password, "email": ""}
        try:
            session.ask_index("POST", "users/", body=json.dumps(body).encode(), expect=(201,))
        except LadingError as error:
            raise wrong from error

    @hookimpl
    def manifest(self, remote: Remote, reference: str) -> RemoteManifest:
        """There are none in this protocol."""
        raise Unsupported(
            f'registry "{remote.host}" speaks the v1 protocol, which has no manifests'
        )

    @hookimpl
    def resolve(self, remote: Remote, reference: str, platform: str) -> RemoteImage:
        """Images, tags, ancestry, and the document of each ancestor."""
        if ":" in reference:
            raise Unsupported(
                f'registry "{remote.host}" speaks the v1 protocol, which has no digests',
                hint="pull by tag",
            )
        session = self._of(remote)
        session.ask_index("GET", f"repositories/{_name(remote)}/images").drain_conn()
        image = self._tagged(session, remote, reference)
        ids = self._ancestry(session, image)
        links = [self._link(session, remote, i) for i in reversed(ids)]
        documents = [document for document, _ in links]
        for parent, document in zip([None, *documents], documents, strict=False):
            if (document.get("parent") or None) != (parent["id"] if parent else None):
                raise Invalid(f"the ancestry of image {image[:12]} does not fit its documents")
        layers = [
            RemoteLayer("", payload.size, oci.LAYER_GZIP, payload.layer_id)
            for document, payload in links
            if legacy.has_content(document)
        ]
        return RemoteImage("", legacy.config_of(documents), layers)

    def _tagged(self, session: Session, remote: Remote, tag: str) -> str:
        tags = self._tags(session, remote)
        if tag not in tags:
            raise NotFound(f"tag {tag} not found in repository {remote.host}/{remote.repository}")
        return tags[tag]

    def _tags(self, session: Session, remote: Remote) -> dict[str, str]:
        found = document_of(session.ask_registry("GET", f"repositories/{_name(remote)}/tags"))
        if isinstance(found, list):
            # The hub's form: [{"name": tag, "layer": id}].
            found = {row.get("name"): row.get("layer") for row in found if isinstance(row, dict)}
        if not isinstance(found, dict):
            raise Invalid("the registry's tags are no JSON object")
        return {str(tag): str(image) for tag, image in found.items()}

    def _ancestry(self, session: Session, image: str) -> list[str]:
        if not legacy.is_legacy_id(image):
            raise Invalid(f'the registry names an image "{image}", which is no id')
        ids = document_of(session.ask_registry("GET", f"images/{image}/ancestry"))
        if not isinstance(ids, list) or not ids or ids[0] != image or len(ids) > LONGEST_CHAIN:
            raise Invalid(f"the ancestry of image {image[:12]} is not one")
        if len(set(map(str, ids))) != len(ids) or not all(
            isinstance(i, str) and legacy.is_legacy_id(i) for i in ids
        ):
            raise Invalid(f"the ancestry of image {image[:12]} is not one")
        return ids

    def _link(self, session: Session, remote: Remote, image: str) -> tuple[dict[str, Any], Payload]:
        answer = session.ask_registry("GET", f"images/{image}/json")
        content = answer.data
        document = legacy.decode(content)
        if document.get("id") != image:
            raise Invalid(f"asked for image {image[:12]}, the registry sent another one")
        size = answer.headers.get("X-Docker-Size", "")
        payload = Payload(
            image,
            content,
            answer.headers.get("X-Docker-Checksum-Payload", ""),
            int(size) if size.isdigit() and int(size) else -1,
        )
        with self._lock:
            self._payloads[remote.operation, image] = payload
        return document, payload

    @hookimpl
    def open_blob(self, remote: Remote, layer: RemoteLayer, offset: int) -> Stream:
        """``GET /v1/images/ID/layer``, with a range from ``offset`` on."""
        with self._lock:
            payload = self._payloads.get((remote.operation, layer.key))
        if payload is None:
            payload = Payload(layer.key, b"", "", layer.size)
        if offset and (layer.size < 0 or (payload.expected and payload.offset != offset)):
            raise Unsupported(f"layer {layer.key[:12]} cannot be taken up at byte {offset}")
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-{layer.size - 1}"
        answer = self._of(remote).ask_registry(
            "GET",
            f"images/{layer.key}/layer",
            headers=headers,
            stream=True,
            expect=(200, 206, 416) if offset else (200,),
        )
        if offset and answer.status != 206:
            answer.close()
            raise Unsupported(f'registry "{remote.host}" cannot resume')
        if not offset:
            payload.restart()
        return IncomingLayer(answer, payload, layer.size - offset if layer.size >= 0 else -1)

    @hookimpl
    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        """The layer's link of the chain, after those below it."""
        return self._push(remote, image).layer(layer, tell)

    @hookimpl
    def push_image(
        self, remote: Remote, image: OutgoingImage, layers: Sequence[PushedLayer], tag: str
    ) -> RemoteManifest:
        """The rest of the chain, the tag, and word to the index."""
        self._push(remote, image).finish(tag)
        return RemoteManifest("", "", b"")

    def _push(self, remote: Remote, image: OutgoingImage) -> Push:
        key = (remote.operation, image.id)
        with self._lock:
            known = self._pushes.get(key)
        if known is None:
            known = Push(self._of(remote), _name(remote), image)
            with self._lock:
                self._pushes[key] = known
        return known

    @hookimpl
    def tags(self, remote: Remote) -> Iterator[str]:
        """``GET /v1/repositories/NS/NAME/tags``."""
        session = self._of(remote)
        session.ask_index("GET", f"repositories/{_name(remote)}/images").drain_conn()
        yield from sorted(self._tags(session, remote))

    @hookimpl
    def search(self, remote: Remote, term: str, limit: int) -> Sequence[SearchResult]:
        """``GET /v1/search``."""
        answer = self._of(remote).ask_index("GET", f"search?{urlencode({'q': term, 'n': limit})}")
        found = document_of(answer)
        rows = found.get("results") if isinstance(found, dict) else None
        return [SearchResult.of_row(row) for row in rows or () if isinstance(row, dict)][:limit]

    @hookimpl
    def delete(self, remote: Remote, reference: str) -> None:
        """``DELETE`` of a tag."""
        session = self._of(remote)
        name = _name(remote)
        # The index hands out a token for it, and deletes nothing by that.
        session.ask_index("DELETE", f"repositories/{name}/images", expect=(200, 204)).drain_conn()
        path = f"repositories/{name}/tags/{quote(reference)}"
        session.ask_registry("DELETE", path, expect=(200, 204))

    @hookimpl
    def close(self, remote: Remote) -> None:
        """Forget tokens, cookies and checksums, close the connections."""
        with self._lock:
            session = self._sessions.pop(remote.operation, None)
            for kept in (self._payloads, self._pushes):
                for key in [key for key in kept if key[0] == remote.operation]:
                    del kept[key]
        if session is not None:
            session.close()

    def _of(self, remote: Remote) -> Session:
        if not remote.operation:
            return Session(remote)
        with self._lock:
            known = self._sessions.get(remote.operation)
            if known is None:
                known = self._sessions[remote.operation] = Session(remote)
            return known


def _name(remote: Remote) -> str:
    """The repository as URLs have it: always with a namespace."""
    name = remote.repository
    return quote(name if "/" in name else f"library/{name}")
