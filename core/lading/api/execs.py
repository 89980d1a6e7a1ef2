"""Routes of exec: processes added to a running container."""

from __future__ import annotations

from lading.api.engine import Engine
from lading.api.parameters import body, size_of_terminal
from lading.api.routes import Routes
from lading.api.streams import hijack
from lading.api.version import version_of
from lading.containers import Exec
from lading.errors import Invalid
from lading.http.messages import Request, Response
from lading.model.docker import ExecConfig, ExecStart, decode


class ExecRoutes:
    """``/containers/X/exec`` and ``/exec``."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("POST", "/containers/{id}/exec", self.create)
        routes.add("POST", "/exec/{id}/start", self.start)
        routes.add("POST", "/exec/{id}/resize", self.resize)
        routes.add("GET", "/exec/{id}/json", self.inspect)

    def create(self, request: Request) -> Response:
        """``POST /containers/X/exec``."""
        wanted = decode(body(request), ExecConfig)
        if not wanted.cmd:
            raise Invalid("No exec command specified")
        return Response.json(
            {"Id": self._containers.exec_create(request.values["id"], wanted)}, 201
        )

    def start(self, request: Request) -> Response:
        """``POST /exec/X/start``.

        When the program cannot be run, an attached client reads the reason as output and takes
        the exit code, 126 or 127, from ``inspect`` afterwards.
        """
        exec_id = request.values["id"]
        options = decode(body(request), ExecStart)
        prepared = self._containers.exec_inspect(exec_id)
        size = options.console_size
        stream = self._containers.exec_start(
            exec_id,
            detach=options.detach,
            tty=options.tty,
            console_size=(size[0], size[1]) if len(size) == 2 else None,
        )
        if stream is None:
            return Response(200)
        return hijack(stream, version_of(request), stdin=prepared.open_stdin, runs_on_head=True)

    def resize(self, request: Request) -> Response:
        """``POST /exec/X/resize``."""
        self._containers.exec_resize(request.values["id"], *size_of_terminal(request))
        return Response(200)

    def inspect(self, request: Request) -> Response:
        """``GET /exec/X/json``."""
        return Response.json(exec_json(self._containers.exec_inspect(request.values["id"])))


def exec_json(found: Exec) -> dict[str, object]:
    """An exec in Docker's JSON."""
    entrypoint, *arguments = found.command
    return {
        "ID": found.id,
        "Running": found.running,
        "ExitCode": found.exit_code,
        "ProcessConfig": {
            "tty": found.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": found.privileged,
            "user": found.user,
        },
        "OpenStdin": found.open_stdin,
        "OpenStderr": found.open_stderr,
        "OpenStdout": found.open_stdout,
        "CanRemove": found.can_remove,
        "ContainerID": found.container,
        "DetachKeys": found.detach_keys,
        "Pid": found.pid,
    }
