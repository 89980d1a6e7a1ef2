"""Routes of volumes."""

from __future__ import annotations

from typing import Any

from lading.api.engine import Engine
from lading.api.parameters import body, filters
from lading.api.routes import Routes
from lading.api.version import version_of
from lading.errors import Unavailable
from lading.http.messages import Request, Response
from lading.model.docker import VolumeCreate, decode
from lading.volumes import Volume


class VolumeRoutes:
    """``/volumes``."""

    def __init__(self, engine: Engine) -> None:
        self._volumes = engine.volumes

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("GET", "/volumes", self.list)
        routes.add("POST", "/volumes/create", self.create)
        routes.add("POST", "/volumes/prune", self.prune)
        routes.add("GET", "/volumes/{name}", self.inspect)
        routes.add("PUT", "/volumes/{name}", self.update)
        routes.add("DELETE", "/volumes/{name}", self.remove)

    def list(self, request: Request) -> Response:
        """``GET /volumes``."""
        found = self._volumes.list(filters(request))
        return Response.json({"Volumes": [volume_json(v) for v in found], "Warnings": []})

    def create(self, request: Request) -> Response:
        """``POST /volumes/create``."""
        wanted = decode(body(request), VolumeCreate)
        made = self._volumes.create(wanted.name, wanted.driver, wanted.driver_opts, wanted.labels)
        return Response.json(volume_json(made), 201)

    def inspect(self, request: Request) -> Response:
        """``GET /volumes/X``."""
        return Response.json(volume_json(self._volumes.get(request.values["name"])))

    def update(self, request: Request) -> Response:
        """``PUT /volumes/X``: only cluster volumes can be updated."""
        self._volumes.get(request.values["name"])
        raise Unavailable("This node is not a swarm manager. Only cluster volumes can be updated.")

    def remove(self, request: Request) -> Response:
        """``DELETE /volumes/X``."""
        self._volumes.remove(request.values["name"], force=request.query.flag("force"))
        return Response(204)

    def prune(self, request: Request) -> Response:
        """``POST /volumes/prune``."""
        chosen = filters(request)
        if version_of(request) < (1, 42):
            chosen.setdefault("all", ["true"])  # named volumes were pruned as well
        pruned = self._volumes.prune(chosen)
        return Response.json(
            {"VolumesDeleted": list(pruned.deleted), "SpaceReclaimed": pruned.space}
        )


def volume_json(volume: Volume, usage: tuple[int, int] | None = None) -> dict[str, Any]:
    """A volume in Docker's JSON; ``usage`` is its size and the number of containers with it."""
    shown: dict[str, Any] = {
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": volume.scope,
    }
    if usage is not None:
        shown["UsageData"] = {"Size": usage[0], "RefCount": usage[1]}
    return shown
