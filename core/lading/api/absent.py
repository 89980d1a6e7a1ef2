"""Routes of what Lading does not have, each with a clear answer: swarm mode, Docker's plugins,
checkpoints, BuildKit sessions."""

from __future__ import annotations

from lading.api.routes import Routes
from lading.errors import NotFound, Unavailable, Unsupported
from lading.http.messages import Request, Response

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
    "connect this node to swarm and try again."
)
_SWARM = (
    ("GET", "/swarm"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    *(
        (method, f"/{kind}{rest}")
        for kind in ("services", "secrets", "configs", "nodes", "tasks")
        for method, rest in (
            ("GET", ""),
            ("POST", "/create"),
            ("GET", "/{id}"),
            ("DELETE", "/{id}"),
            ("POST", "/{id}/update"),
            ("GET", "/{id}/logs"),
        )
    ),
)
_PLUGINS = (
    ("GET", "/plugins/privileges"),
    ("POST", "/plugins/pull"),
    ("POST", "/plugins/create"),
)
_ONE_PLUGIN = (
    ("GET", "/json"),
    ("DELETE", ""),
    ("POST", "/enable"),
    ("POST", "/disable"),
    ("POST", "/upgrade"),
    ("POST", "/push"),
    ("POST", "/set"),
)


def register(routes: Routes) -> None:
    """Add the routes."""
    for method, pattern in _SWARM:
        routes.add(method, pattern, _no_swarm)
    for pattern in ("/swarm/init", "/swarm/join"):
        routes.add("POST", pattern, _no_swarm_mode)
    routes.add("POST", "/swarm/leave", _not_in_a_swarm)
    routes.add("GET", "/plugins", _no_plugins)
    for method, pattern in _PLUGINS:
        routes.add(method, pattern, _no_docker_plugins)
    for method, rest in _ONE_PLUGIN:
        routes.add(method, f"/plugins/{{name:path}}{rest}", _no_such_plugin)
    routes.add("GET", "/containers/{id}/checkpoints", _no_checkpoints)
    routes.add("POST", "/containers/{id}/checkpoints", _no_checkpoints)
    routes.add("DELETE", "/containers/{id}/checkpoints/{name}", _no_checkpoints)
    # Overridden where there is a builder with a cache; `docker system prune` always asks.
    routes.add("POST", "/build/prune", _no_build_cache)
    for pattern in ("/session", "/grpc"):
        routes.add("POST", pattern, _no_sessions)


def _no_swarm(request: Request) -> Response:
    raise Unavailable(NOT_A_MANAGER)


def _not_in_a_swarm(request: Request) -> Response:
    raise Unavailable("This node is not part of a swarm")


def _no_swarm_mode(request: Request) -> Response:
    raise Unsupported("Lading has no swarm mode")


def _no_plugins(request: Request) -> Response:
    return Response.json([])


def _no_docker_plugins(request: Request) -> Response:
    raise Unsupported(
        "Docker's managed plugins are not supported",
        hint="backends of Lading are Python distributions; see lading plugin ls",
    )


def _no_such_plugin(request: Request) -> Response:
    name = request.values["name"]
    raise NotFound(f'plugin "{name}" not found')


def _no_checkpoints(request: Request) -> Response:
    raise Unsupported("no isolation backend here can make checkpoints")


def _no_build_cache(request: Request) -> Response:
    return Response.json({"CachesDeleted": [], "SpaceReclaimed": 0})


def _no_sessions(request: Request) -> Response:
    raise NotFound("BuildKit sessions are not supported", hint="build with DOCKER_BUILDKIT=0")
