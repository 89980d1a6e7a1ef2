"""Pages for people: search, repositories, tags, and what an image is made of."""

from __future__ import annotations

from importlib.resources import files
from urllib.parse import quote, urlsplit

from lading.errors import LadingError
from lading.http.messages import Request, Response
from lading.model import oci
from lading_registry_server import names, pages
from lading_registry_server.access import BadCredentials, Identity
from lading_registry_server.address import Address
from lading_registry_server.manifests import INDEXES, Stored
from lading_registry_server.repositories import Repository, Tag
from lading_registry_server.store import Store

_STATIC = {"/static/style.css": "text/css", "/static/page.js": "text/javascript"}
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    # Descriptions and configs come from strangers: nothing but our own files may run.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
#: Repositories on one page.
MOST_ROWS = 100


class Web:
    """Answers everything that is no API."""

    def __init__(self, store: Store, address: Address) -> None:
        self._store, self._address = store, address
        folder = files("lading_registry_server")
        self._static = {
            path: folder.joinpath(path.rpartition("/")[2]).read_bytes() for path in _STATIC
        }

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        path = request.path
        if path in _STATIC:
            kind = f"{_STATIC[path]}; charset=utf-8"
            headers = {"Content-Type": kind, "Cache-Control": "max-age=3600"}
            return Response(200, headers, self._static[path])
        try:
            identity = self._store.access.identify(request)
        except BadCredentials:
            return self._login()
        page = pages.Page(identity.user, self._store.access.users is not None)
        if path == "/login":
            return self._login() if not identity.user else _see_other("/")
        if path == "/" and request.method in ("GET", "HEAD"):
            return self._home(request, identity, page)
        if path.startswith("/r/"):
            name = names.stored(path.removeprefix("/r/").rstrip("/"))
            repository = self._store.repositories.get(name)
            if repository is not None and self._store.access.shown(identity, repository):
                return self._of_repository(request, identity, page, repository)
        return Response(404, _HEADERS, page.missing())

    def _login(self) -> Response:
        challenge = {"WWW-Authenticate": 'Basic realm="registry", charset="UTF-8"'}
        page = pages.Page("", True)
        return Response(401, {**_HEADERS, **challenge}, page.refused())

    def _home(self, request: Request, identity: Identity, page: pages.Page) -> Response:
        text = request.query.get("q").strip()
        found = (
            self._store.repositories.search(text) if text else self._store.repositories.catalog()
        )
        shown = [row for row in found if self._store.access.shown(identity, row)]
        number = request.query.get("page")
        at = max(int(number), 1) if number.isdecimal() and len(number) < 9 else 1
        rows = shown[(at - 1) * MOST_ROWS : at * MOST_ROWS]
        last = max(-(-len(shown) // MOST_ROWS), 1)
        return Response(200, _HEADERS, page.home(text, rows, len(shown), pages.Part(at, last)))

    def _of_repository(
        self, request: Request, identity: Identity, page: pages.Page, repository: Repository
    ) -> Response:
        if request.method == "POST":
            return self._change(request, identity, repository)
        host = self._address.host(request)
        tag = request.query.get("tag")
        digest = request.query.get("digest")
        if tag or digest:
            return self._image(page, repository, host, tag, digest)
        rows = [
            (tag, self._summary(repository.name, tag))
            for tag in self._store.repositories.tags(repository.name)
        ]
        starred = self._store.repositories.starred(repository.name, identity.user)
        can_change = bool(identity.user) and self._store.access.may(
            identity, repository.name, "delete"
        )
        body = page.repository(repository, host, rows, starred=starred, can_change=can_change)
        return Response(200, _HEADERS, body)

    def _summary(self, repository: str, tag: Tag) -> pages.Summary:
        stored = self._stored(repository, self._store.chains.digest_of(repository, tag))
        if stored is None:
            return pages.Summary()
        if stored.media_type in INDEXES:
            index = oci.decode_index(self._store.manifests.content(stored.digest))
            platforms = [_platform(row.platform) for row in index.manifests if row.platform]
            return pages.Summary(stored.digest, -1, tuple(p for p in platforms if p))
        manifest = oci.decode_manifest(self._store.manifests.content(stored.digest))
        config = self._config(manifest)
        platforms = [f"{config.os}/{config.architecture}"] if config and config.os else []
        return pages.Summary(stored.digest, sum(la.size for la in manifest.layers), platforms)

    def _config(self, manifest: oci.Manifest) -> oci.ImageConfig | None:
        try:
            return oci.decode_config(self._store.blobs.read(manifest.config.digest))
        except LadingError:
            return None

    def _stored(self, repository: str, digest: str) -> Stored | None:
        return self._store.manifests.get(repository, digest) if digest else None

    def _image(
        self, page: pages.Page, repository: Repository, host: str, tag: str, digest: str
    ) -> Response:
        known = self._store.repositories.tag(repository.name, tag) if tag else None
        if tag and not digest:
            digest = self._store.chains.digest_of(repository.name, known) if known else ""
        stored = self._stored(repository.name, digest)
        if stored is None:
            return Response(404, _HEADERS, page.missing())
        reference = f"{host}/{repository.name}" + (f":{tag}" if tag else f"@{digest}")
        content = self._store.manifests.content(stored.digest)
        if stored.media_type in INDEXES:
            rows = [
                (_platform(row.platform), row.digest) for row in oci.decode_index(content).manifests
            ]
            body = page.index(repository.name, reference, tag, stored, rows)
            return Response(200, _HEADERS, body)
        manifest = oci.decode_manifest(content)
        config = self._config(manifest)
        body = page.image(repository.name, reference, tag, stored, manifest, config)
        return Response(200, _HEADERS, body)

    def _change(self, request: Request, identity: Identity, repository: Repository) -> Response:
        # Browsers send passwords along by themselves: only our own forms count.
        origin = urlsplit(request.headers.get("origin", "")).netloc
        if origin != self._address.host(request) or not identity.user:
            return Response(403, _HEADERS, pages.Page(identity.user, True).refused())
        form = pages.form(request.body.read(64 << 10))
        name = repository.name
        if "star" in form:
            self._store.repositories.star(name, identity.user, on=form["star"] == "1")
        elif self._store.access.may(identity, name, "delete"):
            self._store.repositories.change(
                name,
                private=form.get("private") == "1",
                description=form.get("description", "")[:1000],
            )
        else:
            return Response(403, _HEADERS, pages.Page(identity.user, True).refused())
        return _see_other(f"/r/{quote(name)}")


def _see_other(path: str) -> Response:
    return Response(303, {"Location": path, "Cache-Control": "no-cache"})


def _platform(platform: oci.Platform | None) -> str:
    if platform is None or platform.os in ("", "unknown"):
        return ""
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)
