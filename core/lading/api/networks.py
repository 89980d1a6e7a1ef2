"""Routes of networks."""

from __future__ import annotations

from lading.api.engine import Engine
from lading.api.parameters import body, filters
from lading.api.render_network import network_json
from lading.api.routes import Routes
from lading.api.version import version_of
from lading.errors import Invalid
from lading.http.messages import Request, Response
from lading.model.docker import decode
from lading.model.docker_networks import NetworkConnect, NetworkCreate, NetworkDisconnect


class NetworkRoutes:
    """``/networks``."""

    def __init__(self, engine: Engine) -> None:
        self._networks = engine.networks
        self._containers = engine.containers

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("GET", "/networks", self.list)
        routes.add("GET", "/networks/", self.list)
        routes.add("POST", "/networks/create", self.create)
        routes.add("POST", "/networks/prune", self.prune)
        routes.add("GET", "/networks/{id}", self.inspect)
        routes.add("DELETE", "/networks/{id}", self.remove)
        routes.add("POST", "/networks/{id}/connect", self.connect)
        routes.add("POST", "/networks/{id}/disconnect", self.disconnect)

    def list(self, request: Request) -> Response:
        """``GET /networks``; who is on them was part of the list before 1.28 only."""
        version = version_of(request)
        return Response.json(
            [
                network_json(
                    found,
                    self._networks.members(found.id) if version < (1, 28) else (),
                    version,
                )
                for found in self._networks.list(filters(request))
            ]
        )

    def create(self, request: Request) -> Response:
        """``POST /networks/create``."""
        wanted = decode(body(request), NetworkCreate)
        if not wanted.name:
            raise Invalid("network name cannot be empty")
        created = self._networks.create(wanted)
        return Response.json({"Id": created.id, "Warning": created.warning}, 201)

    def inspect(self, request: Request) -> Response:
        """``GET /networks/X``."""
        found = self._networks.get(request.values["id"])
        members = self._networks.members(found.id)
        return Response.json(network_json(found, members, version_of(request)))

    def remove(self, request: Request) -> Response:
        """``DELETE /networks/X``."""
        self._networks.remove(request.values["id"])
        return Response(204)

    def prune(self, request: Request) -> Response:
        """``POST /networks/prune``."""
        deleted = self._networks.prune(filters(request))
        return Response.json({"NetworksDeleted": list(deleted)})

    def connect(self, request: Request) -> Response:
        """``POST /networks/X/connect``."""
        wanted = decode(body(request), NetworkConnect)
        settings = wanted.endpoint_config
        self._containers.connect(request.values["id"], wanted.container, settings)
        return Response(200)

    def disconnect(self, request: Request) -> Response:
        """``POST /networks/X/disconnect``."""
        wanted = decode(body(request), NetworkDisconnect)
        self._containers.disconnect(request.values["id"], wanted.container)
        return Response(200)
