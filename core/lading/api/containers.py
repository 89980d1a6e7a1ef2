"""Routes of containers: list, create, inspect, life cycle, files."""

from __future__ import annotations

import base64

import msgspec

from lading.api import render_container as render
from lading.api.engine import Engine
from lading.api.parameters import (
    body,
    filters,
    optional_integer,
    required,
    size_of_terminal,
)
from lading.api.routes import Routes
from lading.api.version import version_of
from lading.archive import PathStat
from lading.containers import CommitOptions, Container, ListOptions
from lading.errors import Conflict, Invalid, NotFound
from lading.http.messages import Request, Response
from lading.model.docker import (
    ContainerConfig,
    ContainerCreate,
    CopyBody,
    HostConfig,
    Update,
    decode,
)

TAR = "application/x-tar"


class ContainerRoutes:
    """``/containers`` and ``/commit``, without the streams."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        one = "/containers/{id}"
        routes.add("GET", "/containers/json", self.list)
        routes.add("GET", "/containers/ps", self.list)
        routes.add("POST", "/containers/create", self.create)
        routes.add("POST", "/containers/prune", self.prune)
        routes.add("GET", f"{one}/json", self.inspect)
        routes.add("GET", f"{one}/top", self.top)
        routes.add("GET", f"{one}/changes", self.changes)
        routes.add("GET", f"{one}/export", self.export)
        routes.add("POST", f"{one}/start", self.start)
        routes.add("POST", f"{one}/stop", self.stop)
        routes.add("POST", f"{one}/restart", self.restart)
        routes.add("POST", f"{one}/kill", self.kill)
        routes.add("POST", f"{one}/pause", self.pause)
        routes.add("POST", f"{one}/unpause", self.unpause)
        routes.add("POST", f"{one}/rename", self.rename)
        routes.add("POST", f"{one}/update", self.update)
        routes.add("POST", f"{one}/resize", self.resize)
        routes.add("DELETE", one, self.remove)
        routes.add("DELETE", f"{one}/{{alias}}", self.unlink)
        routes.add("HEAD", f"{one}/archive", self.archive_stat)
        routes.add("GET", f"{one}/archive", self.archive_get)
        routes.add("PUT", f"{one}/archive", self.archive_put)
        routes.add("POST", f"{one}/copy", self.copy)
        routes.add("POST", "/commit", self.commit)

    def list(self, request: Request) -> Response:
        """``GET /containers/json``."""
        query, chosen = request.query, filters(request)
        for name in ("since", "before"):
            if query.get(name):
                chosen.setdefault(name, []).append(query.get(name))
        options = ListOptions(
            all=query.flag("all"),
            limit=query.integer("limit"),
            size=query.flag("size"),
            filters=dict(chosen),
        )
        names = ImageNames(self._engine)
        version = version_of(request)
        return Response.json(
            [
                render.summary(
                    row,
                    names.of(row.container),
                    self._engine.networks.of(row.container),
                    version,
                )
                for row in self._containers.list(options)
            ]
        )

    def create(self, request: Request) -> Response:
        """``POST /containers/create``."""
        wanted = decode(body(request), ContainerCreate)
        created = self._containers.create(
            request.query.get("name"),
            wanted.config,
            _with_defaults_of(request, wanted.host),
            wanted.networking_config,
            request.query.get("platform"),
        )
        return Response.json({"Id": created.id, "Warnings": list(created.warnings)}, 201)

    def inspect(self, request: Request) -> Response:
        """``GET /containers/X/json``."""
        container = self._containers.get(request.values["id"])
        size = self._containers.size(container.id) if request.query.flag("size") else None
        return Response.json(
            render.inspect(
                container,
                version=version_of(request),
                networks=self._engine.networks.of(container),
                exec_ids=self._containers.exec_ids(container.id),
                graph=self._engine.graph(container),
                size=size,
            )
        )

    def start(self, request: Request) -> Response:
        """``POST /containers/X/start``; old clients send the host's part of the config here."""
        ref = request.values["id"]
        content = body(request)
        if content.strip() not in (b"", b"{}", b"null"):
            if version_of(request) >= (1, 24):
                raise Invalid(
                    "starting container with non-empty request body was deprecated "
                    "since API v1.22 and removed in v1.24"
                )
            self._containers.set_host_config(ref, decode(content, HostConfig))
        query = request.query
        self._containers.start(ref, query.get("checkpoint"), query.get("checkpoint-dir"))
        return Response(204)

    def stop(self, request: Request) -> Response:
        """``POST /containers/X/stop``."""
        timeout = optional_integer(request, "t")
        self._containers.stop(request.values["id"], timeout, request.query.get("signal"))
        return Response(204)

    def restart(self, request: Request) -> Response:
        """``POST /containers/X/restart``."""
        timeout = optional_integer(request, "t")
        self._containers.restart(request.values["id"], timeout, request.query.get("signal"))
        return Response(204)

    def kill(self, request: Request) -> Response:
        """``POST /containers/X/kill``."""
        self._containers.kill(request.values["id"], request.query.get("signal"))
        return Response(204)

    def pause(self, request: Request) -> Response:
        """``POST /containers/X/pause``."""
        self._containers.pause(request.values["id"])
        return Response(204)

    def unpause(self, request: Request) -> Response:
        """``POST /containers/X/unpause``."""
        self._containers.unpause(request.values["id"])
        return Response(204)

    def rename(self, request: Request) -> Response:
        """``POST /containers/X/rename``."""
        self._containers.rename(request.values["id"], request.query.get("name"))
        return Response(204)

    def update(self, request: Request) -> Response:
        """``POST /containers/X/update``."""
        warnings = self._containers.update(request.values["id"], decode(body(request), Update))
        return Response.json({"Warnings": list(warnings)})

    def resize(self, request: Request) -> Response:
        """``POST /containers/X/resize``."""
        self._containers.resize(request.values["id"], *size_of_terminal(request))
        return Response(200)

    def remove(self, request: Request) -> Response:
        """``DELETE /containers/X``."""
        query = request.query
        if query.flag("link"):
            raise Conflict("a link has the form CONTAINER/ALIAS: this is a container's own name")
        self._containers.remove(
            request.values["id"],
            force=query.flag("force"),
            volumes=query.flag("v"),
        )
        return Response(204)

    def unlink(self, request: Request) -> Response:
        """``DELETE /containers/PARENT/ALIAS?link=1``."""
        ref, alias = request.values["id"], request.values["alias"]
        if not request.query.flag("link"):
            raise NotFound(f"No such container: {ref}/{alias}")
        self._containers.unlink(ref, alias)
        return Response(204)

    def prune(self, request: Request) -> Response:
        """``POST /containers/prune``."""
        pruned = self._containers.prune(filters(request))
        return Response.json(
            {"ContainersDeleted": list(pruned.deleted), "SpaceReclaimed": pruned.space}
        )

    def top(self, request: Request) -> Response:
        """``GET /containers/X/top``."""
        listed = self._containers.top(request.values["id"], request.query.get("ps_args") or "-ef")
        rows = [list(row) for row in listed.processes]
        return Response.json({"Titles": list(listed.titles), "Processes": rows})

    def changes(self, request: Request) -> Response:
        """``GET /containers/X/changes``."""
        found = self._containers.changes(request.values["id"])
        return Response.json([{"Path": c.path, "Kind": int(c.kind)} for c in found])

    def export(self, request: Request) -> Response:
        """``GET /containers/X/export``."""
        pieces = self._containers.export(request.values["id"])
        return Response.stream(pieces, "application/octet-stream")

    def archive_stat(self, request: Request) -> Response:
        """``HEAD /containers/X/archive``."""
        path = required(request, "path")
        found = self._containers.archive_stat(request.values["id"], path)
        return Response(200, {"X-Docker-Container-Path-Stat": path_stat(found)})

    def archive_get(self, request: Request) -> Response:
        """``GET /containers/X/archive``."""
        path = required(request, "path")
        found, pieces = self._containers.archive_get(request.values["id"], path)
        headers = {"Content-Type": TAR, "X-Docker-Container-Path-Stat": path_stat(found)}
        return Response(200, headers, pieces)

    def archive_put(self, request: Request) -> Response:
        """``PUT /containers/X/archive``."""
        query = request.query
        self._containers.archive_put(
            request.values["id"],
            required(request, "path"),
            request.body,
            no_overwrite_dir_nondir=query.flag("noOverwriteDirNonDir"),
            copy_uidgid=query.flag("copyUIDGID"),
        )
        return Response(200)

    def copy(self, request: Request) -> Response:
        """``POST /containers/X/copy``, of clients before 1.20."""
        if version_of(request) >= (1, 24):
            raise NotFound("page not found")
        path = decode(body(request), CopyBody).resource
        if not path:
            raise Invalid("path cannot be empty")
        _, pieces = self._containers.archive_get(request.values["id"], "/" + path.lstrip("/"))
        return Response.stream(pieces, TAR)

    def commit(self, request: Request) -> Response:
        """``POST /commit``."""
        query = request.query
        content = body(request)
        image = self._containers.commit(
            required(request, "container"),
            CommitOptions(
                repo=query.get("repo"),
                tag=query.get("tag"),
                comment=query.get("comment") or query.get("m"),
                author=query.get("author"),
                pause=query.flag("pause", True),
                changes=query.all("changes"),
                config=decode(content, ContainerConfig) if content.strip() else None,
            ),
        )
        return Response.json({"Id": image.id}, 201)


class ImageNames:
    """What to call the images of a list of containers, each reference looked up once."""

    def __init__(self, engine: Engine) -> None:
        self._images = engine.images
        self._known: dict[str, str] = {}

    def of(self, container: Container) -> str:
        """The name the user gave, or the ID when that name means another image by now."""
        name = container.config.image
        if container.rootfs:
            return name
        if name not in self._known:
            try:
                self._known[name] = self._images.get(name).id
            except (NotFound, Invalid):
                self._known[name] = container.image
        return name if name and self._known[name] == container.image else container.image


def _with_defaults_of(request: Request, host: HostConfig) -> HostConfig:
    """Defaults that have changed since the client's API version."""
    version = version_of(request)
    older: dict[str, str] = {}
    if version < (1, 40) and not host.ipc_mode:
        older["ipc_mode"] = "shareable"
    if version < (1, 41) and not host.cgroupns_mode:
        older["cgroupns_mode"] = "host"
    return msgspec.structs.replace(host, **older) if older else host


def path_stat(found: PathStat) -> str:
    """The header ``X-Docker-Container-Path-Stat``."""
    shown = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": found.mtime,
        "linkTarget": found.link_target,
    }
    return base64.b64encode(msgspec.json.encode(shown)).decode("ascii")
