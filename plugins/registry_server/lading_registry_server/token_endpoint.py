"""``/auth/token``: bearer tokens for the distribution API.

Both ways of asking: GET with Basic (distribution's token specification), and POST of a form
(OAuth 2, with ``grant_type`` ``password`` or ``refresh_token``). Nobody is refused for asking too
much: the token allows what its holder may.
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs

from lading.http.messages import Request, Response
from lading_registry_server import names
from lading_registry_server.access import Access, BadCredentials, Identity
from lading_registry_server.errors import ApiError
from lading_registry_server.tokens import LIFETIME

LARGEST_FORM = 64 << 10


class TokenEndpoint:
    """Gives tokens."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        try:
            if request.method == "POST":
                return self._by_form(request)
            identity = self._access.identify(request)
        except BadCredentials as error:
            challenge = {"WWW-Authenticate": 'Basic realm="registry"'}
            return ApiError("UNAUTHORIZED", str(error), headers=challenge).response()
        query = request.query
        return self._token(identity, query.all("scope"), query.flag("offline_token"))

    def _by_form(self, request: Request) -> Response:
        form = parse_qs(request.body.read(LARGEST_FORM).decode("utf-8", "replace"))
        fields = {name: values[0] for name, values in form.items()}
        if fields.get("grant_type") == "refresh_token":
            identity = self._access.by_refresh_token(fields.get("refresh_token", ""))
        else:
            identity = self._access.by_password(
                fields.get("username", ""), fields.get("password", "")
            )
        return self._token(identity, form.get("scope", []), fields.get("access_type") == "offline")

    def _token(self, identity: Identity, scopes: list[str], refresh: bool) -> Response:
        access: dict[str, list[str]] = {}
        for scope in " ".join(scopes).split():
            self._add(access, identity, scope)
        token = self._access.tokens.make("access", identity.user, access)
        body: dict[str, object] = {
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if refresh and identity.user:
            body["refresh_token"] = self._access.refresh_token(identity)
        return Response.json(body)

    def _add(self, access: dict[str, list[str]], identity: Identity, scope: str) -> None:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "registry" and name == "catalog":
            access["_catalog"] = ["*"]
        if kind != "repository" or not names.is_name(name):
            return
        repository = names.stored(name)
        wanted = ["pull", "push", "delete"] if "*" in actions else actions.split(",")
        allowed = [a for a in wanted if self._access.may(identity, repository, a)]
        access.setdefault(repository, []).extend(allowed)
