"""The whole server: which part a request is for."""

from __future__ import annotations

import logging

from lading.errors import LadingError
from lading.http.messages import Request, Response
from lading_registry_server.address import Address
from lading_registry_server.distribution import Distribution
from lading_registry_server.legacy_index import Index
from lading_registry_server.store import Store
from lading_registry_server.token_endpoint import TokenEndpoint
from lading_registry_server.web import Web

log = logging.getLogger(__name__)


class App:
    """What :class:`lading.http.server.Server` calls."""

    def __init__(self, store: Store, address: Address, *, signup: bool = False) -> None:
        """``signup``: whether clients may make themselves users."""
        self._distribution = Distribution(store, address)
        self._index = Index(store, address, signup=signup)
        self._tokens = TokenEndpoint(store.access)
        self._web = Web(store, address)

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        try:
            response = self._answer(request)
        except LadingError as error:
            log.info("%s %s: %s", request.method, request.path, error)
            response = Response.json({"error": str(error)}, error.status)
        log.debug("%s %s: %d", request.method, request.target, response.status)
        return response

    def _answer(self, request: Request) -> Response:
        first = request.path.split("/")[1]
        if first == "v2":
            return self._distribution.handle(request)
        if first in ("v1", "_ping"):
            return self._index.handle(request)
        if request.path == "/auth/token":
            return self._tokens.handle(request)
        return self._web.handle(request)
