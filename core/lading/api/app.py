"""What the HTTP server calls: API versions, routing, and errors in Docker's form."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lading import __version__
from lading.api import absent
from lading.api.build import BuildRoutes
from lading.api.containers import ContainerRoutes
from lading.api.engine import Engine
from lading.api.execs import ExecRoutes
from lading.api.failures import error_response
from lading.api.host_mounts import HostMountRoutes
from lading.api.images import ImageRoutes
from lading.api.networks import NetworkRoutes
from lading.api.plugins import PluginRoutes
from lading.api.storage import StorageRoutes
from lading.api.streams import StreamRoutes
from lading.api.system import SystemRoutes
from lading.api.transfers import TransferRoutes
from lading.api.version import MAXIMUM, MINIMUM, Version, spelled
from lading.api.volumes import VolumeRoutes
from lading.errors import Invalid, NotFound
from lading.http.messages import App, Request, Response, Router

_PREFIX = re.compile(r"/v(\d+)\.(\d+)(/.*)")
_SLASHES = re.compile("//+")


class Api:
    """Routes by API version and path. Extensions add routes with :meth:`add`."""

    def __init__(self) -> None:
        self._router = Router()

    def add(self, method: str, pattern: str, handler: App) -> None:
        """Add a route, written without the version prefix: ``/containers/{id}/json``."""
        self._router.add(method, pattern, handler)

    def __call__(self, request: Request) -> Response:
        """Answer a request; errors become answers as well."""
        version = MAXIMUM
        try:
            version, path = _versioned(request.path)
            request.state["version"] = version
            return self._route(request, path)
        except ConnectionError:
            raise
        except Exception as error:
            return error_response(error, version)

    def _route(self, request: Request, path: str) -> Response:
        found = self._router.find(request.method, path)
        if found is None:
            if request.method == "OPTIONS":
                return Response(200)
            raise NotFound("page not found")
        handler, request.values = found
        return handler(request)


def make_app(engine: Engine) -> Api:
    """The API of one daemon, with all routes of the core's."""
    api = Api()
    absent.register(api)
    for group in (
        ContainerRoutes,
        StreamRoutes,
        ExecRoutes,
        ImageRoutes,
        TransferRoutes,
        NetworkRoutes,
        VolumeRoutes,
        SystemRoutes,
        BuildRoutes,
        HostMountRoutes,
        PluginRoutes,
        StorageRoutes,
    ):
        group(engine).register(api)
    return api


def _versioned(path: str) -> tuple[Version, str]:
    match = _PREFIX.fullmatch(path)
    if match is None:
        return MAXIMUM, _SLASHES.sub("/", path)
    version = int(match[1]), int(match[2])
    if version < MINIMUM:
        raise Invalid(
            f"client version {spelled(version)} is too old. Minimum supported API version is "
            f"{spelled(MINIMUM)}, please upgrade your client to a newer version"
        )
    if version > MAXIMUM:
        raise Invalid(
            f"client version {spelled(version)} is too new. "
            f"Maximum supported API version is {spelled(MAXIMUM)}"
        )
    return version, _SLASHES.sub("/", match[3])


def server_headers() -> Sequence[tuple[str, str]]:
    """What every response carries."""
    return (
        ("Api-Version", spelled(MAXIMUM)),
        ("Docker-Experimental", "false"),
        ("Ostype", "linux"),
        ("Server", f"Lading/{__version__} (linux)"),
    )
