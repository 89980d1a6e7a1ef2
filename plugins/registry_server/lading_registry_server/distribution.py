"""The distribution API: who may come in, tags, manifests, blobs, lists (OCI distribution 1.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from lading.errors import Invalid, NotFound
from lading.http.messages import FileResponse, Request, Response
from lading.model import oci
from lading_registry_server import names, ranges
from lading_registry_server.access import DELETE, PULL, PUSH, BadCredentials, Identity
from lading_registry_server.address import Address
from lading_registry_server.blob_uploads import BlobUploads
from lading_registry_server.errors import ApiError
from lading_registry_server.manifests import IMAGES, INDEXES, LARGEST, Stored, preferred
from lading_registry_server.store import Store

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
PAGE = 1000
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_DOCKER = re.compile(r"\bdocker/(\d+)\.(\d+)")
_ROUTE = re.compile(
    r"/v2/(?P<name>.+)/(?:(?P<tags>tags/list)|manifests/(?P<reference>[^/]+)"
    r"|blobs/uploads/(?P<session>[^/]*)|blobs/uploads(?P<begin>)|blobs/(?P<blob>[^/]+)"
    r"|referrers/(?P<subject>[^/]+))"
)

Handler = Callable[[Request, Identity, str, str], Response]


class Distribution:
    """Answers ``/v2/``."""

    def __init__(self, store: Store, address: Address) -> None:
        self._store, self._address = store, address
        self._uploads = BlobUploads(store)
        self._routes: dict[str, dict[str, tuple[str, Handler]]] = {
            "tags": {"GET": (PULL, self._tags)},
            "reference": {
                "GET": (PULL, self._get_manifest),
                "HEAD": (PULL, self._get_manifest),
                "PUT": (PUSH, self._put_manifest),
                "DELETE": (DELETE, self._delete_manifest),
            },
            "blob": {
                "GET": (PULL, self._get_blob),
                "HEAD": (PULL, self._get_blob),
                "DELETE": (DELETE, self._delete_blob),
            },
            "begin": {"POST": (PUSH, self._begin)},
            "session": {
                "GET": (PUSH, self._uploads.status),
                "PATCH": (PUSH, self._uploads.append),
                "PUT": (PUSH, self._uploads.finish),
                "DELETE": (PUSH, self._uploads.cancel),
            },
            "subject": {"GET": (PULL, self._referrers)},
        }

    def handle(self, request: Request) -> Response:
        """Answer one request under ``/v2``."""
        if _knows_only_schema_1(request.headers.get("user-agent", "")):
            # Without the version's header they go on with the protocol of 2014.
            return Response.text("this client is served by /v1/\n", 404)
        try:
            response = self._answer(request)
        except ApiError as error:
            response = error.response()
        except BadCredentials as error:
            bearer = request.headers.get("authorization", "").lower().startswith("bearer")
            kind = "invalid_token" if bearer else ""
            response = self._challenge(request, str(error), "", error=kind).response()
        response.headers = {**VERSION, **response.headers}
        return response

    def _answer(self, request: Request) -> Response:
        identity = self._store.access.identify(request)
        if request.path in ("/v2", "/v2/"):
            return self._base(request, identity)
        if request.path == "/v2/_catalog":
            return self._catalog(request, identity)
        match = _ROUTE.fullmatch(request.path)
        if match is None:
            raise ApiError("UNSUPPORTED", "there is no such thing here", status=404)
        name = match["name"]
        if not names.is_name(name):
            raise ApiError("NAME_INVALID", "invalid repository name", {"name": name})
        kind, value = next(
            (k, v) for k, v in match.groupdict().items() if k != "name" and v is not None
        )
        if kind == "session" and not value:
            kind = "begin"
        methods = self._routes[kind]
        if request.method not in methods:
            allow = {"Allow": ", ".join(sorted(methods))}
            raise ApiError("UNSUPPORTED", "the operation is unsupported", headers=allow)
        action, handler = methods[request.method]
        repository = names.stored(name)
        self._require(request, identity, repository, action)
        return handler(request, identity, repository, value)

    # -- access

    def _require(self, request: Request, identity: Identity, repository: str, action: str) -> None:
        access = self._store.access
        if access.allowed(identity, repository, action):
            return
        if identity.user and not access.may(identity, repository, action):
            raise ApiError("DENIED", "requested access to the resource is denied")
        wanted = PULL if action == PULL else f"{PULL},{action}"
        # Said of a token, it keeps dockerd from trying the same again and again (RFC 6750, 3.1).
        kind = "insufficient_scope" if identity.granted is not None else ""
        scope = f"repository:{repository}:{wanted}"
        raise self._challenge(request, "authentication required", scope, error=kind)

    def _challenge(self, request: Request, reason: str, scope: str, *, error: str = "") -> ApiError:
        scheme, host = self._address.of(request)
        fields = {"realm": f"{scheme}://{host}/auth/token", "service": host}
        fields |= {name: text for name, text in (("scope", scope), ("error", error)) if text}
        value = ",".join(f'{name}="{text}"' for name, text in fields.items())
        return ApiError("UNAUTHORIZED", reason, headers={"WWW-Authenticate": f"Bearer {value}"})

    def _base(self, request: Request, identity: Identity) -> Response:
        # Clients come here to find out how to log in, even where pulling needs no login.
        known = identity.user or identity.granted is not None
        if self._store.access.users is not None and not known:
            raise self._challenge(request, "authentication required", "")
        return Response.json({})

    # -- lists

    def _catalog(self, request: Request, identity: Identity) -> Response:
        access = self._store.access
        if access.users is not None and not identity.token_allows("_catalog", "*"):
            raise self._challenge(request, "authentication required", "registry:catalog:*")
        found = [
            repository.name
            for repository in self._store.repositories.catalog(request.query.get("last"))
            if access.shown(identity, repository)
        ]
        return _page(request, "/v2/_catalog", found, lambda part: {"repositories": part})

    def _tags(self, request: Request, identity: Identity, repository: str, _: str) -> Response:
        if self._store.repositories.get(repository) is None:
            raise ApiError(
                "NAME_UNKNOWN", "repository name not known to registry", {"name": repository}
            )
        found = [
            tag.name
            for tag in self._store.repositories.tags(repository)
            if self._store.chains.digest_of(repository, tag)
        ]
        last = request.query.get("last")
        return _page(
            request,
            f"/v2/{repository}/tags/list",
            [tag for tag in found if tag > last],
            lambda part: {"name": repository, "tags": part},
        )

    def _referrers(
        self, request: Request, identity: Identity, repository: str, subject: str
    ) -> Response:
        _checked_digest(subject)
        wanted = request.query.get("artifactType")
        rows = [
            _descriptor(row) for row in self._store.manifests.referrers(repository, subject, wanted)
        ]
        body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": rows}
        headers = {"Content-Type": oci.INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        return Response(200, headers, msgspec.json.encode(body))

    # -- manifests

    def _digest(self, repository: str, reference: str) -> str:
        """The digest that a reference means. Raises ApiError."""
        if ":" in reference:
            return _checked_digest(reference)
        tag = self._store.repositories.tag(repository, reference)
        digest = self._store.chains.digest_of(repository, tag) if tag else ""
        if not digest:
            raise ApiError("MANIFEST_UNKNOWN", "manifest unknown", {"Tag": reference})
        return digest

    def _manifest(self, repository: str, digest: str) -> Stored:
        stored = self._store.manifests.get(repository, digest)
        if stored is None:
            raise ApiError("MANIFEST_UNKNOWN", "manifest unknown", {"Digest": digest})
        return stored

    def _get_manifest(
        self, request: Request, identity: Identity, repository: str, reference: str
    ) -> Response:
        stored = self._manifest(repository, self._digest(repository, reference))
        if ":" not in reference:
            stored = self._acceptable(request, repository, stored)
        etag = f'"{stored.digest}"'
        headers = {
            "Content-Type": stored.media_type,
            "Docker-Content-Digest": stored.digest,
            "ETag": etag,
        }
        if etag in request.headers.get("if-none-match", ""):
            return Response(304, headers)
        return Response(200, headers, self._store.manifests.content(stored.digest))

    def _acceptable(self, request: Request, repository: str, stored: Stored) -> Stored:
        """For a client that knows no indexes, the image in one."""
        accept = request.headers.get("accept", "")
        if stored.media_type not in INDEXES or stored.media_type in accept:
            return stored
        if not any(kind in accept for kind in IMAGES) or any(kind in accept for kind in INDEXES):
            return stored
        content = self._store.manifests.content(stored.digest)
        chosen = preferred(oci.decode_index(content).manifests)
        found = self._store.manifests.get(repository, chosen.digest) if chosen else None
        return found or stored

    def _put_manifest(
        self, request: Request, identity: Identity, repository: str, reference: str
    ) -> Response:
        is_digest = ":" in reference
        if is_digest:
            _checked_digest(reference)
        elif not names.is_tag(reference):
            raise ApiError("TAG_INVALID", "manifest tag did not match URI", {"tag": reference})
        content = request.body.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ApiError("MANIFEST_INVALID", f"more than {LARGEST} bytes", status=413)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if is_digest and oci.digest_of(content) != reference:
            raise ApiError("DIGEST_INVALID", "provided digest did not match uploaded content")
        self._store.repositories.ensure(repository, identity.user)
        stored = self._store.manifests.put(repository, media_type, content)
        if not is_digest:
            agent = request.headers.get("user-agent", "")
            self._store.repositories.set_tag(
                repository, reference, digest=stored.digest, pusher=agent
            )
        headers = {
            "Location": f"/v2/{repository}/manifests/{stored.digest}",
            "Docker-Content-Digest": stored.digest,
        }
        if stored.subject:
            headers["OCI-Subject"] = stored.subject
        return Response(201, headers)

    def _delete_manifest(
        self, request: Request, identity: Identity, repository: str, reference: str
    ) -> Response:
        if ":" in reference:
            done = self._store.manifests.remove(repository, _checked_digest(reference))
        else:
            done = self._store.repositories.remove_tag(repository, reference)
        if not done:
            raise ApiError("MANIFEST_UNKNOWN", "manifest unknown", {"Reference": reference})
        return Response(202)

    # -- blobs

    def _get_blob(
        self, request: Request, identity: Identity, repository: str, digest: str
    ) -> Response:
        _checked_digest(digest)
        if not self._store.repositories.linked(repository, digest):
            raise ApiError("BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Cache-Control": "max-age=31536000",
            "Accept-Ranges": "bytes",
        }
        if f'"{digest}"' in request.headers.get("if-none-match", ""):
            return Response(304, headers)
        try:
            size = self._store.blobs.size(digest)
            wanted = ranges.parse(request.headers.get("range", ""), size)
            blob = self._store.blobs.open(digest)
        except (NotFound, Invalid) as error:
            raise ApiError("BLOB_UNKNOWN", "blob unknown to registry", str(error)) from error
        except ValueError as error:
            bounds = {"Content-Range": f"bytes */{size}"}
            raise ApiError("RANGE_INVALID", str(error), headers=bounds) from error
        if wanted is None:
            return FileResponse(200, headers, file=blob, size=size)
        start, length = wanted
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
        return FileResponse(206, headers, file=blob, offset=start, size=length)

    def _delete_blob(
        self, request: Request, identity: Identity, repository: str, digest: str
    ) -> Response:
        if not self._store.repositories.unlink(repository, _checked_digest(digest)):
            raise ApiError("BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return Response(202)

    def _begin(self, request: Request, identity: Identity, repository: str, _: str) -> Response:
        source = names.stored(request.query.get("from"))
        mount = request.query.get("mount")
        readable = bool(source) and self._store.access.may(identity, source, PULL)
        # A token names what it may read; the source must be among that as well.
        readable = readable and identity.token_allows(source, PULL)
        return self._uploads.begin(request, identity, repository, mount if readable else "", source)


def _knows_only_schema_1(agent: str) -> bool:
    """Whether a client is a Docker before 1.10: it takes signed manifests of schema 1 only, which
    are not made here."""
    match = _DOCKER.search(agent)
    return match is not None and (int(match[1]), int(match[2])) < (1, 10)


def _checked_digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ApiError("DIGEST_INVALID", "invalid digest", {"digest": text})
    return text


def _descriptor(row: Stored) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        found["artifactType"] = row.artifact_type
    if annotations := msgspec.json.decode(row.annotations):
        found["annotations"] = annotations
    return found


def _page(
    request: Request,
    path: str,
    rows: Sequence[str],
    body: Callable[[Sequence[str]], dict[str, Any]],
) -> Response:
    """A part of a list, with a link to the next (spec, "Listing Tags")."""
    text = request.query.get("n")
    if text and not text.isdigit():
        raise ApiError(
            "PAGINATION_NUMBER_INVALID", "invalid number of results requested", {"n": text}
        )
    limit = min(int(text), PAGE) if text else PAGE
    part = rows[:limit]
    response = Response.json(body(part))
    if part and len(rows) > limit:
        query = urlencode({"last": part[-1], "n": limit})
        response.headers["Link"] = f'<{quote(path)}?{query}>; rel="next"'
    return response
