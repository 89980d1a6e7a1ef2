"""Routes of images that need no registry: list, look, tag, remove, import, load, save."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from lading.api import render_image as render
from lading.api.engine import Engine
from lading.api.parameters import filters, required
from lading.api.progress import Emit, progress
from lading.api.routes import Routes
from lading.api.version import version_of
from lading.errors import Invalid, NotFound, Unavailable
from lading.http.messages import Request, RequestBody, Response

TAR = "application/x-tar"
FETCH_SECONDS = 60


class ImageRoutes:
    """``/images``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        one = "/images/{name:path}"
        routes.add("GET", "/images/json", self.list)
        routes.add("GET", "/images/get", self.save_many)
        routes.add("POST", "/images/load", self.load)
        routes.add("POST", "/images/prune", self.prune)
        routes.add("GET", "/images/viz", self.viz)
        routes.add("GET", "/lading/images/root", self.root)
        routes.add("GET", f"{one}/json", self.inspect)
        routes.add("GET", f"{one}/history", self.history)
        routes.add("GET", f"{one}/get", self.save)
        routes.add("POST", f"{one}/tag", self.tag)
        routes.add("DELETE", one, self.remove)

    def list(self, request: Request) -> Response:
        """``GET /images/json``."""
        query, chosen = request.query, filters(request)
        if query.get("filter"):
            chosen.setdefault("reference", []).append(query.get("filter"))
        shared = query.flag("shared-size")
        found = self._images.list(chosen, all=query.flag("all"))
        return Response.json(render.summaries(found, version=version_of(request), shared=shared))

    def inspect(self, request: Request) -> Response:
        """``GET /images/X/json``."""
        image = self._images.get(request.values["name"])
        storage = self._engine.settings.storage_driver
        return Response.json(render.inspect(image, storage=storage, version=version_of(request)))

    def history(self, request: Request) -> Response:
        """``GET /images/X/history``."""
        lines = self._images.history(request.values["name"])
        return Response.json([render.history_line(line) for line in lines])

    def tag(self, request: Request) -> Response:
        """``POST /images/X/tag``."""
        name = name_of(required(request, "repo"), request.query.get("tag"))
        self._images.tag(request.values["name"], name)
        return Response(201)

    def remove(self, request: Request) -> Response:
        """``DELETE /images/X``."""
        query = request.query
        lines = self._images.remove(
            request.values["name"], force=query.flag("force"), noprune=query.flag("noprune")
        )
        return Response.json(render.deletions(lines))

    def prune(self, request: Request) -> Response:
        """``POST /images/prune``."""
        report = self._images.prune(filters(request))
        return Response.json(
            {
                "ImagesDeleted": render.deletions(report.deleted),
                "SpaceReclaimed": report.space,
            }
        )

    def save(self, request: Request) -> Response:
        """``GET /images/X/get``."""
        return Response.stream(self._images.save([request.values["name"]]), TAR)

    def save_many(self, request: Request) -> Response:
        """``GET /images/get?names=X&names=Y``."""
        names = [name for given in request.query.all("names") for name in given.split(",") if name]
        if not names:
            raise Invalid("no images to save")
        return Response.stream(self._images.save(names), TAR)

    def load(self, request: Request) -> Response:
        """``POST /images/load``."""
        quiet = request.query.flag("quiet", True)

        def work(emit: Emit) -> None:
            tell = _ignore if quiet else emit
            for name in self._images.load(request.body, tell):
                kind = "image ID" if name.startswith("sha256:") else "image"
                emit({"stream": f"Loaded {kind}: {name}\n"})

        # As in dockerd: whatever the archive is found to be, its client reads it in the stream.
        return progress(request, work, accepted=True)

    def import_(self, request: Request) -> Response:
        """``POST /images/create?fromSrc=``: a root filesystem from the body or from a URL."""
        query = request.query
        source = query.get("fromSrc")

        def work(emit: Emit) -> None:
            with _source(request, source) as stream:
                image = self._images.import_(
                    stream,
                    repo=query.get("repo"),
                    tag=query.get("tag"),
                    changes=query.all("changes"),
                    message=query.get("message") or f"Imported from {source}",
                    platform=query.get("platform"),
                )
            emit({"status": image.id})

        return progress(request, work)

    def root(self, request: Request) -> Response:
        """``GET /lading/images/root?image=X``: the image's tree as a tar."""
        return Response.stream(self._images.root(request.query.get("image")), "application/x-tar")

    def viz(self, request: Request) -> Response:
        """``GET /images/viz``, gone since 1.6."""
        raise NotFound("page not found")


def name_of(repository: str, tag: str) -> str:
    """A reference from the two parameters that clients split it into; the tag may be a digest."""
    if not tag:
        return repository
    return f"{repository}@{tag}" if ":" in tag else f"{repository}:{tag}"


def _ignore(message: object) -> None:
    """Progress that nobody asked for."""


@contextmanager
def _source(request: Request, source: str) -> Iterator[RequestBody]:
    if source == "-":
        yield request.body
        return
    url = source if "://" in source else f"http://{source}"
    if not url.startswith(("http://", "https://")):
        raise Invalid(f'import from "{source}": neither "-" nor an http(s) URL')
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as response:
            yield cast(RequestBody, response)
    except urllib.error.URLError as error:
        raise Unavailable(f'import from "{source}": {error.reason}') from error
