"""Routes that reach a registry: pull, push, search, distribution, login."""

from __future__ import annotations

import msgspec

from lading.api.engine import Engine
from lading.api.images import ImageRoutes, name_of
from lading.api.parameters import body, credentials, filters, required
from lading.api.progress import progress
from lading.api.routes import Routes
from lading.errors import Invalid
from lading.http.messages import Request, Response
from lading.model import oci
from lading.model.docker import AuthConfig, decode


class TransferRoutes:
    """What of ``/images`` reaches a registry, ``/distribution`` and ``/auth``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = ImageRoutes(engine)

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("POST", "/images/create", self.create)
        routes.add("POST", "/images/{name:path}/push", self.push)
        routes.add("GET", "/images/search", self.search)
        routes.add("GET", "/distribution/{name:path}/json", self.distribution)
        routes.add("GET", "/lading/manifests/{name:path}", self.manifests)
        routes.add("POST", "/auth", self.login)

    def create(self, request: Request) -> Response:
        """``POST /images/create``: pull, or import."""
        query = request.query
        name = name_of(query.get("fromImage"), query.get("tag"))
        if not query.get("fromImage"):
            if not query.get("fromSrc"):
                raise Invalid("one of the query parameters fromImage and fromSrc is needed")
            return self._images.import_(request)
        auth, platform = credentials(request), query.get("platform")
        return progress(
            request,
            lambda emit: self._engine.transfers.pull(
                name, emit, auth=auth, platform=platform, gone=request.gone
            ),
        )

    def push(self, request: Request) -> Response:
        """``POST /images/X/push``."""
        name = name_of(request.values["name"], request.query.get("tag"))
        auth, platform = credentials(request), _platform(request.query.get("platform"))
        return progress(
            request,
            lambda emit: self._engine.transfers.push(
                name, emit, auth=auth, platform=platform, gone=request.gone
            ),
        )

    def search(self, request: Request) -> Response:
        """``GET /images/search``."""
        found = self._engine.transfers.search(
            required(request, "term"),
            limit=request.query.integer("limit"),
            filters=filters(request),
            auth=credentials(request),
        )
        return Response.json(list(found))

    def distribution(self, request: Request) -> Response:
        """``GET /distribution/X/json``."""
        return Response.json(
            self._engine.transfers.distribution(request.values["name"], auth=credentials(request))
        )

    def manifests(self, request: Request) -> Response:
        """``GET /lading/manifests/X``: Lading's own."""
        query = request.query
        found = self._engine.transfers.manifests(
            request.values["name"],
            auth=credentials(request),
            every=query.flag("all"),
            insecure=query.flag("insecure"),
        )
        return Response.json(list(found))

    def login(self, request: Request) -> Response:
        """``POST /auth``."""
        token = self._engine.transfers.login(decode(body(request), AuthConfig))
        return Response.json({"Status": "Login Succeeded", "IdentityToken": token})


def _platform(text: str) -> str:
    """``os/arch[/variant]`` from JSON (API 1.46), or as it is. Raises Invalid."""
    if not text.startswith("{"):
        return text
    try:
        given = msgspec.json.decode(text, type=oci.Platform)
    except msgspec.DecodeError as error:
        raise Invalid(f"invalid platform: {error}") from error
    return "/".join(part for part in (given.os, given.architecture, given.variant) if part)
