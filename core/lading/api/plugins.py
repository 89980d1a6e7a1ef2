"""Routes of Lading's own, all below ``/lading/``: plugins, and what the host can."""

from __future__ import annotations

import msgspec

from lading.api.engine import Engine
from lading.api.routes import Routes
from lading.doctor import examination, plugin_reports
from lading.errors import NotFound
from lading.http.messages import Request, Response


class PluginRoutes:
    """What the daemon knows of its plugins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("GET", "/lading/plugins", self.list)
        routes.add("GET", "/lading/plugins/{name}", self.inspect)
        routes.add("POST", "/lading/plugins/{name}/reload", self.reload)
        routes.add("GET", "/lading/doctor", self.doctor)

    def list(self, request: Request) -> Response:
        """``GET /lading/plugins``."""
        return Response.json(msgspec.to_builtins(plugin_reports(self._engine.roles)))

    def inspect(self, request: Request) -> Response:
        """``GET /lading/plugins/{name}``: all of that name, for several roles may have one."""
        name = request.values["name"]
        found = [row for row in plugin_reports(self._engine.roles) if row.name == name]
        if not found:
            raise NotFound(f'no plugin "{name}" is installed')
        return Response.json(msgspec.to_builtins(found))

    def reload(self, request: Request) -> Response:
        """``POST /lading/plugins/{name}/reload``; ``role`` where a name is two plugins'."""
        role = request.query.get("role")
        name = request.values["name"]
        self._engine.reload_plugin(f"{role}/{name}" if role else name)
        return Response(204)

    def doctor(self, request: Request) -> Response:
        """``GET /lading/doctor``."""
        return Response.json(examination(self._engine.roles))
