"""Routes of images and containers that are shown on the host: Lading's own, below ``/lading``."""

from __future__ import annotations

from typing import Any

from lading.api.engine import Engine
from lading.api.parameters import body
from lading.api.routes import Routes
from lading.containers import HostMount
from lading.errors import Invalid
from lading.http.messages import Request, Response
from lading.model.body import Body, decode


class MountRequest(Body, frozen=True):
    """What to show, one of the two, and where; "" for a directory of the engine's own."""

    image: str = ""
    container: str = ""
    target: str = ""


class HostMountRoutes:
    """``/lading/mounts``."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers
        self._images = engine.images
        self._mounts = engine.containers.host_mounts

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("GET", "/lading/mounts", self.list)
        routes.add("POST", "/lading/mounts", self.create)
        routes.add("DELETE", "/lading/mounts", self.remove)

    def list(self, request: Request) -> Response:
        """``GET /lading/mounts``."""
        return Response.json([mount_json(made) for made in self._mounts.all()])

    def create(self, request: Request) -> Response:
        """``POST /lading/mounts``."""
        wanted = decode(body(request), MountRequest)
        if bool(wanted.image) == bool(wanted.container):
            raise Invalid("mount: name an image or a container")
        if wanted.image:
            made = self._mounts.show_image(wanted.image, wanted.target)
        else:
            made = self._containers.show(wanted.container, wanted.target)
        return Response.json(mount_json(made), 201)

    def remove(self, request: Request) -> Response:
        """``DELETE /lading/mounts?image=X`` or ``?container=X``."""
        query = request.query
        image, container, force = query.get("image"), query.get("container"), query.flag("force")
        if bool(image) == bool(container):
            raise Invalid("unmount: name an image or a container")
        if image:
            gone = self._mounts.hide(self._images.get(image).id, f"image {image}", force=force)
        else:
            gone = list(self._containers.hide(container, force=force))
        return Response.json([mount_json(made) for made in gone])


def mount_json(made: HostMount) -> dict[str, Any]:
    """One mount."""
    return {
        "Kind": made.kind,
        "Id": made.object,
        "Name": made.name,
        "Target": made.target,
        "Driver": made.filesystem,
        "Created": made.created,
    }
