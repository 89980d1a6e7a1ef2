"""The index of 2014 (``/v1/``): users, repositories, tags, search, and the way to the registry.

Stands for docker-registry 0.9.1 run alone: statuses, texts and headers are what its clients look
at. Stricter than that program only when there is a users file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from lading.errors import Conflict, Invalid
from lading.http.messages import Request, Response
from lading.model import legacy
from lading_registry_server import names
from lading_registry_server.access import DELETE, PULL, PUSH, BadCredentials, Identity
from lading_registry_server.address import Address
from lading_registry_server.errors import LegacyError
from lading_registry_server.legacy_registry import Registry, pusher
from lading_registry_server.legacy_reply import NO_CACHE, reply
from lading_registry_server.repositories import Tag
from lading_registry_server.store import Store

LARGEST_BODY = 16 << 20
_ROUTE = re.compile(
    r"/v1/repositories/(?P<name>.+?)/(?:(?P<images>images)|(?P<auth>auth)|(?P<json>json)"
    r"|(?P<properties>properties)|tags/(?P<tag_json>[^/]+)/json|tags/(?P<tag>[^/]+)|(?P<tags>tags))?/?"
)

Handler = Callable[[Request, Identity, str, str], Response]


class Index:
    """Answers ``/v1/``."""

    def __init__(self, store: Store, address: Address, *, signup: bool) -> None:
        self._store, self._address, self._signup = store, address, signup
        self._registry = Registry(store)
        self._routes: dict[tuple[str, str], tuple[str, Handler]] = {
            ("", "PUT"): (PUSH, self._put_repository),
            ("", "DELETE"): (DELETE, self._delete_repository),
            ("images", "GET"): (PULL, self._get_images),
            ("images", "PUT"): (PUSH, self._put_images),
            ("images", "DELETE"): (DELETE, self._delete_images),
            ("auth", "PUT"): (PULL, self._put_auth),
            ("tags", "GET"): (PULL, self._get_tags),
            ("tags", "DELETE"): (DELETE, self._delete_repository),
            ("tag", "GET"): (PULL, self._get_tag),
            ("tag", "PUT"): (PUSH, self._put_tag),
            ("tag", "DELETE"): (DELETE, self._delete_tag),
            ("tag_json", "GET"): (PULL, self._get_tag_json),
            ("json", "GET"): (PULL, self._get_tag_json),
            ("properties", "GET"): (PULL, self._get_properties),
            ("properties", "PUT"): (PUSH, self._put_properties),
        }

    def handle(self, request: Request) -> Response:
        """Answer one request under ``/v1``."""
        try:
            return self._answer(request)
        except LegacyError as error:
            headers = {**NO_CACHE, **error.headers}
            return reply({"error": error.text}, error.status, headers)
        except BadCredentials as error:
            challenge = 'Basic realm="auth required", Token'
            headers = {**NO_CACHE, "WWW-Authenticate": challenge}
            return reply({"error": str(error)}, 401, headers)

    def _answer(self, request: Request) -> Response:
        path, method = request.path, request.method
        if path in ("/_ping", "/v1/_ping") and method in ("GET", "HEAD"):
            return reply({}, headers={**NO_CACHE, "X-Docker-Registry-Standalone": "True"})
        if path.startswith("/v1/images/"):
            return self._registry.handle(request)
        if path.startswith("/v1/users"):
            return self._users(request)
        identity = self._store.access.identify(request)
        if path == "/v1/search" and method == "GET":
            return self._search(request, identity)
        return self._repositories(request, identity)

    # -- users

    def _users(self, request: Request) -> Response:
        path, method = request.path, request.method
        if method == "GET" and path == "/v1/users":
            return _moved(request)
        if method == "GET" and path == "/v1/users/":
            identity = self._store.access.identify(request)
            if self._store.access.users is not None and not identity.user:
                raise BadCredentials("authentication required")
            return reply("OK")
        if method == "POST" and path in ("/v1/users", "/v1/users/"):
            return self._sign_up(_object(request))
        match = re.fullmatch(r"/v1/users/([^/]+)/?", path)
        if method == "PUT" and match:
            return self._change_user(request, match[1])
        return _nothing()

    def _sign_up(self, body: Mapping[str, Any]) -> Response:
        users = self._store.access.users
        name, password = str(body.get("username") or ""), str(body.get("password") or "")
        if users is None:
            return reply("User Created", 201)
        if users.get(name) is not None:
            # With this very text clients go on and check the password.
            return reply("Username or email already exists", 400)
        if not self._signup:
            raise LegacyError(401, "Unauthorized: users are made by the administrator here")
        try:
            users.add(name, password, new=True)
        except (Invalid, Conflict) as error:
            raise LegacyError(400, error.message) from error
        return reply("User Created", 201)

    def _change_user(self, request: Request, name: str) -> Response:
        users = self._store.access.users
        if users is not None:
            identity = self._store.access.identify(request)
            user = users.get(name)
            if identity.user != name or user is None or identity.granted is not None:
                raise BadCredentials("only a user himself may do that")
            if password := _object(request).get("password"):
                try:
                    users.add(name, str(password), admin=user.admin)
                except Invalid as error:
                    raise LegacyError(400, error.message) from error
        return reply("", 204)

    # -- repositories

    def _repositories(self, request: Request, identity: Identity) -> Response:
        match = _ROUTE.fullmatch(request.path)
        if match is None and request.method in ("PUT", "DELETE"):
            match = re.fullmatch(r"/v1/repositories/(?P<name>[^/].*)", request.path)
            if match is not None:
                return _moved(request)
        if match is None or not names.is_legacy_name(match["name"]):
            return _nothing()
        found = {k: v for k, v in match.groupdict().items() if k != "name" and v is not None}
        kind, value = next(iter(found.items()), ("", ""))
        route = self._routes.get((kind, "GET" if request.method == "HEAD" else request.method))
        if route is None:
            return _nothing(405)
        action, handler = route
        repository = names.stored(match["name"])
        if not self._store.access.allowed(identity, repository, action):
            if identity.user and not self._store.access.may(identity, repository, action):
                raise LegacyError(403, "access denied")
            raise BadCredentials("Requires authorization")
        return handler(request, identity, repository, value)

    def _with_token(
        self, response: Response, request: Request, identity: Identity, repository: str, access: str
    ) -> Response:
        """Add what a client needs for the calls that follow."""
        value = self._store.access.legacy_token(identity, repository, access)
        response.headers |= {
            "X-Docker-Token": f"Token {value}",
            "WWW-Authenticate": f"Token {value}",
            "X-Docker-Endpoints": self._address.host(request),
        }
        return response

    def _put_repository(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        rows = _images(request)
        self._store.repositories.ensure(name, identity.user)
        self._store.chains.announce(name, rows)
        return self._with_token(reply(""), request, identity, name, "write")

    def _put_images(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        rows = _images(request)
        self._store.repositories.ensure(name, identity.user)
        self._store.chains.announce(name, rows)
        return self._with_token(reply("", 204), request, identity, name, "write")

    def _get_images(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        self._store.chains.expose(name)
        if self._store.repositories.get(name) is None:
            raise LegacyError(404, "images not found")
        rows = []
        for image, tag, checksum in self._store.chains.members(name):
            row = {"id": image, "checksum": checksum, "Tag": tag}
            rows.append({key: value for key, value in row.items() if value})
        return self._with_token(reply(rows), request, identity, name, "read")

    def _delete_images(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        return self._with_token(reply("", 204), request, identity, name, "delete")

    def _delete_repository(
        self, request: Request, identity: Identity, name: str, _: str
    ) -> Response:
        if self._store.repositories.get(name) is None:
            raise LegacyError(404, "Repository not found")
        self._store.repositories.remove(name)
        return self._with_token(reply(True), request, identity, name, "delete")

    def _put_auth(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        return reply("OK")

    # -- tags

    def _get_tags(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        if self._store.repositories.get(name) is None:
            raise LegacyError(404, "Repository not found")
        found = {}
        for tag in self._store.repositories.tags(name):
            if image := self._store.chains.image_of(name, tag):
                found[tag.name] = image
        return reply(found)

    def _tag(self, name: str, tag: str) -> tuple[Tag, str]:
        known = self._store.repositories.tag(name, tag)
        image = self._store.chains.image_of(name, known) if known else ""
        if known is None or not image:
            raise LegacyError(404, "Tag not found")
        return known, image

    def _get_tag(self, request: Request, identity: Identity, name: str, tag: str) -> Response:
        return reply(self._tag(name, tag)[1])

    def _put_tag(self, request: Request, identity: Identity, name: str, tag: str) -> Response:
        image = _body(request)
        if not isinstance(image, str):
            raise LegacyError(400, "Invalid data")
        if not names.is_tag(tag):
            raise LegacyError(400, "Invalid tag name")
        if not legacy.is_legacy_id(image) or self._store.chains.get(image) is None:
            raise LegacyError(404, "Image not found")
        self._store.repositories.ensure(name, identity.user)
        self._store.chains.announce(
            name, [(link.id, "", "") for link in self._store.chains.ancestry(image)[::-1]]
        )
        agent = request.headers.get("user-agent", "")
        self._store.repositories.set_tag(name, tag, image=image, pusher=agent)
        return reply(True)

    def _delete_tag(self, request: Request, identity: Identity, name: str, tag: str) -> Response:
        if not self._store.repositories.remove_tag(name, tag):
            raise LegacyError(404, f"Tag not found: {tag}")
        return reply(True)

    def _get_tag_json(self, request: Request, identity: Identity, name: str, tag: str) -> Response:
        known = self._store.repositories.tag(name, tag or "latest")
        if known is None:
            return reply(pusher(""))
        updated = datetime.fromisoformat(known.updated[:19] + "Z")
        return reply({**pusher(known.pusher), "last_update": int(updated.timestamp())})

    # -- properties and search

    def _get_properties(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        known = self._store.repositories.get(name)
        return reply({"access": "private" if known and known.private else "public"})

    def _put_properties(self, request: Request, identity: Identity, name: str, _: str) -> Response:
        access = _object(request).get("access")
        if access not in ("private", "public"):
            raise LegacyError(400, "Invalid data")
        self._store.repositories.ensure(name, identity.user)
        self._store.repositories.change(name, private=access == "private")
        return reply(True)

    def _search(self, request: Request, identity: Identity) -> Response:
        text = request.query.get("q")
        rows = [
            {
                "name": names.legacy(repository.name),
                "description": repository.description,
                "star_count": repository.stars,
                "is_official": "/" not in repository.name,
                "is_automated": False,
                "is_trusted": False,
            }
            for repository in self._store.repositories.search(text)
            if self._store.access.shown(identity, repository)
        ]
        return reply({"num_results": len(rows), "query": text, "results": rows})


def _moved(request: Request) -> Response:
    path, question, query = request.target.partition("?")
    return Response(301, {**NO_CACHE, "Location": f"{path}/{question}{query}"})


def _nothing(status: int = 404) -> Response:
    text = "Not Found" if status == 404 else "Method Not Allowed"
    body = f"<!DOCTYPE html><title>{status} {text}</title><h1>{text}</h1>\n"
    return Response(status, {"Content-Type": "text/html; charset=utf-8"}, body.encode())


def _body(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    content = request.body.read(LARGEST_BODY + 1)
    # The program of 2014 sees nothing of a form either.
    if kind == "application/x-www-form-urlencoded" or len(content) > LARGEST_BODY:
        content = b""
    try:
        return json.loads(content)
    except ValueError as error:
        raise LegacyError(400, "Error Decoding JSON") from error


def _object(request: Request) -> Mapping[str, Any]:
    body = _body(request)
    if not isinstance(body, dict):
        raise LegacyError(400, "Invalid data")
    return body


def _images(request: Request) -> list[tuple[str, str, str]]:
    """The images that a push announces: id, tag, checksum. Raises LegacyError."""
    body = _body(request)
    if not isinstance(body, list):
        raise LegacyError(400, "Invalid data")
    rows = []
    for row in body:
        if not isinstance(row, dict) or not legacy.is_legacy_id(str(row.get("id"))):
            raise LegacyError(400, "Invalid data")
        rows.append((str(row["id"]), str(row.get("Tag") or ""), str(row.get("checksum") or "")))
    return rows
