"""Routes that stream: logs, attach (raw and websocket), wait, stats."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from lading.api import websocket
from lading.api.engine import Engine
from lading.api.failures import error_response
from lading.api.parameters import nanoseconds
from lading.api.routes import Routes
from lading.api.version import Version, version_of
from lading.containers import AttachOptions, LogOptions, Stream
from lading.errors import Invalid
from lading.http.messages import Connection, Hijack, Request, Response
from lading.http.pump import pump, send_and_settle

RAW = "application/vnd.docker.raw-stream"
FRAMED = "application/vnd.docker.multiplexed-stream"


class StreamRoutes:
    """What of ``/containers/X`` goes on for a while."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers
        self._events = engine.events

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        one = "/containers/{id}"
        routes.add("GET", f"{one}/logs", self.logs)
        routes.add("POST", f"{one}/attach", self.attach)
        routes.add("GET", f"{one}/attach/ws", self.attach_websocket)
        routes.add("POST", f"{one}/wait", self.wait)
        routes.add("GET", f"{one}/stats", self.stats)

    def logs(self, request: Request) -> Response:
        """``GET /containers/X/logs``."""
        query = request.query
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        if not (stdout or stderr):
            raise Invalid("Bad parameters: you must choose at least one stream")
        options = LogOptions(
            stdout=stdout,
            stderr=stderr,
            follow=query.flag("follow"),
            since=nanoseconds(request, "since"),
            until=nanoseconds(request, "until"),
            tail=_tail(query.get("tail")),
            timestamps=query.flag("timestamps"),
            details=query.flag("details"),
        )
        output = self._containers.logs(request.values["id"], options)
        media_type = stream_type(version_of(request), tty=output.tty)
        return Response.stream(until_gone(request, output.chunks, output.close), media_type)

    def attach(self, request: Request) -> Response:
        """``POST /containers/X/attach``."""
        options = _attach_options(request)
        stream = self._containers.attach(request.values["id"], options)
        return hijack(stream, version_of(request), stdin=options.stdin)

    def attach_websocket(self, request: Request) -> Response:
        """``GET /containers/X/attach/ws``."""
        headers = websocket.accept(request)
        stream = self._containers.attach(request.values["id"], _attach_options(request))
        version = version_of(request)

        def prepare() -> Callable[[Connection], None]:
            carrier = websocket.Carrier(stream.connect(), tty=stream.tty, binary=version >= (1, 28))
            return carrier.carry

        return Hijack(
            101, headers, prepare=prepare, failed=lambda error: error_response(error, version)
        )

    def wait(self, request: Request) -> Response:
        """``POST /containers/X/wait``: the promise is made, then the headers go, then it waits."""
        wait = self._containers.wait(
            request.values["id"], request.query.get("condition") or "not-running"
        )

        def answer() -> Iterator[bytes]:
            with request.when_gone(lambda: wait.resolve(0, "the client is gone")):
                code, error = wait.result()
            shown: dict[str, object] = {"StatusCode": code}
            if error:
                shown["Error"] = {"Message": error}
            yield msgspec.json.encode(shown) + b"\n"

        return Response.stream(answer(), "application/json")

    def stats(self, request: Request) -> Response:
        """``GET /containers/X/stats``."""
        stream = request.query.flag("stream", True)
        readings = self._containers.stats(
            request.values["id"], stream=stream, one_shot=request.query.flag("one-shot")
        )

        def answer() -> Iterator[bytes]:
            for reading in readings:
                yield msgspec.json.encode(reading) + b"\n"
                if request.gone():
                    return

        return Response.stream(answer(), "application/json")


def until_gone(
    request: Request, pieces: Iterator[bytes], close: Callable[[], None]
) -> Iterator[bytes]:
    """The pieces; ``close`` ends them when the client hangs up, and in any case at the end."""
    try:
        with request.when_gone(close):
            yield from pieces
    finally:
        close()


def stream_type(version: Version, *, tty: bool) -> str:
    """The media type of a container's output; before 1.42 it did not tell frames from raw."""
    return FRAMED if not tty and version >= (1, 42) else RAW


def hijack(
    stream: Stream, version: Version, *, stdin: bool, runs_on_head: bool = False
) -> Response:
    """The client's connection becomes the stream; a plain one is given away to the monitor.

    As a rule the stream is connected before the client is answered, since the client may start the
    container right after. With ``runs_on_head`` connecting is what starts the process: then the
    client has the head first. docker-py loses what arrives together with it.
    """

    def prepare() -> Callable[[Connection], None]:
        connected = None if runs_on_head else stream.connect()

        def run(client: Connection) -> None:
            with connected or stream.connect() as engine:
                pump(client, engine, stdin=stdin)

        return run

    def hand_over(descriptor: int, head: bytes) -> None:
        if runs_on_head:
            send_and_settle(descriptor, head)
            head = b""
        stream.hand_over(descriptor, head)

    return Hijack(
        200,
        {"Content-Type": stream_type(version, tty=stream.tty)},
        prepare=prepare,
        hand_over=hand_over,
        failed=lambda error: error_response(error, version),
    )


def _attach_options(request: Request) -> AttachOptions:
    query = request.query
    return AttachOptions(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        logs=query.flag("logs"),
        stream=query.flag("stream"),
        detach_keys=query.get("detachKeys"),
    )


def _tail(text: str) -> int:
    """A number of lines; ``all`` and, as in Docker, anything that is no number means all."""
    try:
        return int(text)
    except ValueError:
        return -1
