"""The backend object: the registry contract in terms of the distribution API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, ClassVar
from urllib.parse import urlencode

import urllib3
from urllib3.response import BaseHTTPResponse

from lading.errors import Invalid, NotFound, Unauthorized, Unavailable, Unsupported
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
from lading.http.retries import reason_of
from lading.model import oci, platforms
from lading_registry_v2 import upload
from lading_registry_v2.connection import Connection

_MANIFESTS = (oci.MANIFEST, oci.DOCKER_MANIFEST)
_INDEXES = (oci.INDEX, oci.DOCKER_INDEX)
#: What the config of an image may be called; some tools say nothing of what it is.
_CONFIGS = (oci.CONFIG, oci.DOCKER_CONFIG, "application/octet-stream")
_ACCEPT = ", ".join((*_MANIFESTS, *_INDEXES))
LARGEST_MANIFEST = 8 << 20
RESOLVE_ATTEMPTS = 3


class RegistryV2:
    """OCI distribution."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"search", "delete", "digests"})

    def __init__(self, context: Context) -> None:
        self._lock = threading.Lock()
        self._connections: dict[str, Connection] = {}

    @hookimpl
    def probe(self) -> Probe:
        """Needs nothing but its library."""
        return Probe(usable=True, version=version("urllib3"))

    @hookimpl
    def ping(self, remote: Remote) -> bool:
        """``GET /v2/`` answered by a registry, if only with 401."""
        connection = Connection(remote)
        try:
            answer = connection.ping()
        finally:
            connection.close()
        if answer.headers.get("Docker-Distribution-API-Version", "").startswith("registry/2"):
            return True
        # The header is Docker's; others may leave it out, but then say what they are otherwise.
        challenge = answer.headers.get("WWW-Authenticate", "").lower()
        if answer.status == 401:
            return challenge.startswith(("bearer", "basic"))
        return answer.status == 200 and answer.data.strip() in (b"{}", b"")

    @hookimpl
    def login(self, remote: Remote) -> str:
        """Ask for ``/v2/`` with the credentials, and for a token that stands for the password."""
        connection = Connection(remote, offline=True)
        try:
            connection.request("GET", connection.base, scope="")
            return connection.refresh_token
        except Unauthorized as error:
            raise Unauthorized(
                f"login attempt to {connection.base} failed: incorrect username or password"
            ) from error
        finally:
            connection.close()

    @hookimpl
    def manifest(self, remote: Remote, reference: str) -> RemoteManifest:
        """``GET /v2/<name>/manifests/<reference>``."""
        return self._manifest(remote, reference)

    def _manifest(self, remote: Remote, reference: str) -> RemoteManifest:
        answer = self._of(remote).request(
            "GET",
            f"{remote.repository}/manifests/{reference}",
            scope=_pull(remote),
            headers={"Accept": _ACCEPT},
            stream=True,
        )
        try:
            content = answer.read(LARGEST_MANIFEST + 1)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"manifest {reference} broke off: {reason_of(error)}") from error
        finally:
            answer.close()
        if len(content) > LARGEST_MANIFEST:
            raise Invalid(f"manifest {reference} has more than {LARGEST_MANIFEST} bytes")
        digest = oci.digest_of(content)
        told = answer.headers.get("Docker-Content-Digest", digest)
        wanted = reference if ":" in reference else told
        if digest != wanted:
            raise Invalid(f"manifest {reference} has the digest {digest}, not {wanted}")
        kind = (answer.headers.get("Content-Type") or "").partition(";")[0]
        return RemoteManifest(digest, kind, content)

    @hookimpl
    def resolve(self, remote: Remote, reference: str, platform: str) -> RemoteImage:
        """Manifest, through an index when it is one, and config; twice more if they break off."""
        for _ in range(RESOLVE_ATTEMPTS - 1):
            try:
                return self._resolve(remote, reference, platform)
            except Unavailable:
                continue
        return self._resolve(remote, reference, platform)

    def _resolve(self, remote: Remote, reference: str, platform: str) -> RemoteImage:
        top = found = self._manifest(remote, reference)
        for _ in range(4):
            kind = found.media_type or json.loads(found.content or b"{}").get("mediaType", "")
            if kind not in _INDEXES:
                break
            chosen = _choose(oci.decode_index(found.content).manifests, platform)
            found = self._manifest(remote, chosen.digest)
        if "schemaVersion" in (document := _document(found.content)) and (
            document["schemaVersion"] == 1
        ):
            raise Unsupported(
                f"{remote.repository}:{reference} has a manifest of schema 1",
                hint="push it again with a newer client",
            )
        manifest = oci.decode_manifest(found.content)
        if manifest.config.media_type not in _CONFIGS:
            raise Unsupported(
                f'{remote.repository}:{reference} is no image but "{manifest.config.media_type}"'
            )
        config = self._config(remote, manifest.config)
        layers = [RemoteLayer(row.digest, row.size, row.media_type) for row in manifest.layers]
        return RemoteImage(top.digest, config, layers, found)

    def _config(self, remote: Remote, descriptor: oci.Descriptor) -> bytes:
        if descriptor.size > LARGEST_MANIFEST:
            raise Invalid(f"image config of {descriptor.size} bytes")
        layer = RemoteLayer(descriptor.digest, descriptor.size, descriptor.media_type)
        stream = self._open(remote, layer, 0)
        try:
            parts = []
            while part := stream.read(1 << 20):
                parts.append(part)
                if sum(map(len, parts)) > LARGEST_MANIFEST:
                    raise Invalid("the image config is longer than announced")
        except OSError as error:
            raise Unavailable(f"image config {descriptor.digest} broke off: {error}") from error
        finally:
            stream.close()
        content = b"".join(parts)
        if oci.digest_of(content) != descriptor.digest:
            raise Invalid(
                f"image config has the digest {oci.digest_of(content)}, "
                f"the manifest says {descriptor.digest}"
            )
        return content

    @hookimpl
    def open_blob(self, remote: Remote, layer: RemoteLayer, offset: int) -> Stream:
        """``GET /v2/<name>/blobs/<digest>``, with a range from ``offset`` on."""
        return self._open(remote, layer, offset)

    def _open(self, remote: Remote, layer: RemoteLayer, offset: int) -> Stream:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._of(remote).request(
            "GET",
            f"{remote.repository}/blobs/{layer.digest}",
            scope=_pull(remote),
            headers={**headers, "Accept-Encoding": "identity"},
            stream=True,
            expect=(200, 206),
        )
        span = answer.headers.get("Content-Range", "")
        if offset and (answer.status != 206 or not span.startswith(f"bytes {offset}-")):
            answer.close()
            raise Unsupported(f"registry {remote.host} cannot resume")
        if not offset and answer.status == 206:
            answer.close()
            raise Invalid(f"registry {remote.host} sends a part where the whole was asked for")
        return _Body(answer)

    @hookimpl
    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        """Look for it, else upload it."""
        return upload.layer(self._of(remote), remote, layer, tell)

    @hookimpl
    def push_image(
        self, remote: Remote, image: OutgoingImage, layers: Sequence[PushedLayer], tag: str
    ) -> RemoteManifest:
        """Config, then ``PUT /v2/<name>/manifests/<tag>``."""
        connection = self._of(remote)
        upload.small(connection, remote, image.id, image.config)
        manifest = _same_manifest(image, layers) or _new_manifest(image, layers)
        connection.request(
            "PUT",
            f"{remote.repository}/manifests/{tag}",
            scope=upload.scope(remote),
            headers={"Content-Type": manifest.media_type},
            body=manifest.content,
            expect=(200, 201, 202),
        )
        return manifest

    @hookimpl
    def tags(self, remote: Remote) -> Iterator[str]:
        """``GET /v2/<name>/tags/list``, all pages."""
        for page in self._of(remote).pages(
            f"{remote.repository}/tags/list?n=1000", scope=_pull(remote)
        ):
            yield from page.get("tags") or ()

    @hookimpl
    def search(self, remote: Remote, term: str, limit: int) -> Sequence[SearchResult]:
        """Distribution has no search: the index's ``/v1/search``, else names of the catalog."""
        connection = self._of(remote)
        try:
            answer = connection.request(
                "GET", f"/v1/search?{urlencode({'q': term, 'n': limit})}", scope=""
            )
            rows = json.loads(answer.data).get("results") or []
            return [SearchResult.of_row(row) for row in rows][:limit]
        except (NotFound, Invalid, ValueError):
            pass
        found: list[SearchResult] = []
        for page in connection.pages("_catalog?n=1000", scope="registry:catalog:*"):
            found += [SearchResult(n) for n in page.get("repositories") or () if term in n]
            if len(found) >= limit:
                break
        return found[:limit]

    @hookimpl
    def delete(self, remote: Remote, reference: str) -> None:
        """``DELETE`` of the manifest that the reference leads to."""
        digest = self._manifest(remote, reference).digest
        self._of(remote).request(
            "DELETE",
            f"{remote.repository}/manifests/{digest}",
            scope=f"repository:{remote.repository}:delete,pull",
            expect=(200, 202),
        )

    @hookimpl
    def close(self, remote: Remote) -> None:
        """Drop the operation's connections."""
        with self._lock:
            connection = self._connections.pop(remote.operation, None)
        if connection is not None:
            connection.close()

    def _of(self, remote: Remote) -> Connection:
        if not remote.operation:
            return Connection(remote)
        with self._lock:
            known = self._connections.get(remote.operation)
            if known is None:
                known = self._connections[remote.operation] = Connection(remote)
            return known


class _Body:
    """A response's content; a break is an OSError, which the core resumes after."""

    def __init__(self, answer: BaseHTTPResponse) -> None:
        self._answer = answer

    def read(self, size: int, /) -> bytes:
        """Some bytes."""
        try:
            # Not ``read``, which waits for all of it and forgets what came before a break.
            return self._answer.read1(size, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(f"the connection broke: {reason_of(error)}") from error

    def close(self) -> None:
        """Give the connection up, unless it is at the end."""
        with suppress(ValueError, RuntimeError, OSError):
            # Another thread may be waiting in ``read``: closing alone would not wake it.
            self._answer.shutdown()
        self._answer.close()


def _pull(remote: Remote) -> str:
    return f"repository:{remote.repository}:pull"


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise Invalid(f"the manifest is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("the manifest is no JSON object")
    return document


def _choose(rows: Sequence[oci.Descriptor], platform: str) -> oci.Descriptor:
    """The entry of an index for a platform. Raises NotFound with what there is."""
    wanted = platforms.parse(platform)
    fitting = [
        row
        for row in rows
        if row.platform
        and wanted.accepts(row.platform.os, row.platform.architecture, row.platform.variant)
    ]
    # Of several the one of just that variant, else the first.
    fitting.sort(key=lambda row: row.platform is None or row.platform.variant != wanted.variant)
    if fitting:
        return fitting[0]
    there = ", ".join(f"{r.platform.os}/{r.platform.architecture}" for r in rows if r.platform)
    raise NotFound(
        f"no matching manifest for {wanted} in the manifest list entries",
        hint=f"there are: {there}",
    )


def _same_manifest(image: OutgoingImage, layers: Sequence[PushedLayer]) -> RemoteManifest | None:
    """The manifest that the image was pulled with, if its layers went out as they came."""
    if image.manifest is None:
        return None
    rows = oci.decode_manifest(image.manifest.content).layers
    if [row.digest for row in rows] != [layer.digest for layer in layers]:
        return None
    return image.manifest


def _new_manifest(image: OutgoingImage, layers: Sequence[PushedLayer]) -> RemoteManifest:
    """Docker's schema 2, which every registry and client takes; OCI's where a layer needs it."""
    rows = [oci.Descriptor(la.media_type, la.digest, la.size) for la in layers]
    zstd = any(row.media_type == oci.LAYER_ZSTD for row in rows)
    encode, kind = (
        (oci.oci_manifest, oci.MANIFEST) if zstd else (oci.docker_manifest, oci.DOCKER_MANIFEST)
    )
    content = encode(image.config, rows)
    return RemoteManifest(oci.digest_of(content), kind, content)
