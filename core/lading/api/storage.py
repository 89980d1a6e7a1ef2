"""Routes of filesystem backends: Lading's own, below ``/lading``."""

from __future__ import annotations

from lading.api.engine import Engine
from lading.api.parameters import body
from lading.api.progress import Emit, progress
from lading.api.routes import Routes
from lading.errors import Invalid
from lading.http.messages import Request, Response
from lading.model.body import Body, Words, decode


class MigrateRequest(Body, frozen=True):
    """What moves, by names of containers and images or all of them, and where to."""

    to: str = ""
    names: Words = []
    all: bool = False


class StorageRoutes:
    """``/lading/storage``."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("POST", "/lading/storage/migrate", self.migrate)

    def migrate(self, request: Request) -> Response:
        """``POST /lading/storage/migrate``: a stream of messages, as pull has it."""
        wanted = decode(body(request), MigrateRequest)
        if bool(wanted.names) == wanted.all:
            raise Invalid("migrate: name containers and images, or ask for all")

        def work(emit: Emit) -> None:
            self._containers.migrate(wanted.names, wanted.to, emit, all=wanted.all)

        return progress(request, work)
