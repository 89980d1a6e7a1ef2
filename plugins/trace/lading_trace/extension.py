"""The hooks of the extension, in the daemon and in the spawner."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lading.hooks import Context, Probe, hookimpl
from lading.hooks.extension import Around, Commands, Operation, Routes, around
from lading.hooks.isolation import Container
from lading.operations import current

# Nothing heavy: monitors are forked from a process that has this module.
from lading_trace.spans import Book, Mailbox, Span

if TYPE_CHECKING:
    from lading.http.messages import Request, Response
    from lading_trace.otlp import Exporter

#: The options of ``[extension.trace]`` with their types.
OPTIONS: Mapping[str, type] = {
    "recording": bool,
    "keep": int,
    "endpoint": str,
    "headers": dict,
    "service-name": str,
}

#: Seconds that the last operation of a trace is given to end.
SETTLE = 1.0

#: Arguments that say which thing a call is about; others may be large, or secret.
_TELLING = ("key", "name", "parent", "reference", "tag", "platform", "term", "signal", "netns")


class Trace:
    """Puts a clock around every hook of every backend."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self._options = context.options
        self._mailbox = Mailbox(context.run / "spans")
        keep = context.options.get("keep", 200)
        self._book = Book(self._mailbox, keep if isinstance(keep, int) else 0)
        self._exporter: Exporter | None = None
        self._in_daemon = False

    @hookimpl
    def probe(self) -> Probe:
        """Works everywhere, unless an option is wrong."""
        for name, value in self._options.items():
            wanted = OPTIONS.get(name)
            if wanted is None:
                known = ", ".join(OPTIONS)
                return Probe(False, f'it has no option "{name}"', f"options: {known}")
            if not isinstance(value, wanted):
                return Probe(False, f'its option "{name}" is no {wanted.__name__}')
        if "://" not in self._options.get("endpoint", "http://"):
            return Probe(False, "its endpoint is no URL", "http://HOST:4318/v1/traces")
        return Probe(usable=True)

    @hookimpl
    def register_commands(self, commands: Commands) -> None:
        """Add ``lading trace``."""
        commands.add(
            "trace", "lading_trace.commands:trace", "See how long the hooks of backends take"
        )

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        """Add what ``lading trace`` asks for."""
        routes.add("GET", "/lading/trace", self._list)
        routes.add("POST", "/lading/trace/start", self._start)
        routes.add("POST", "/lading/trace/stop", self._stop)
        routes.add("DELETE", "/lading/trace", self._clear)

    @hookimpl
    def wrap(self, role: str, name: str) -> object:
        """Time all hooks of the backend."""
        if role != "isolation" and not self._in_daemon:
            # Only the daemon loads other roles, and it loads them before any operation.
            self._in_daemon = True
            if self._options.get("recording", True):
                self._book.start()
        return around(role, self._timed(role, name))

    @hookimpl
    def operation_began(self, operation: Operation) -> None:
        """Record it."""
        self._book.begin(operation)

    @hookimpl
    def operation_ended(self, operation: Operation, error: str) -> None:
        """Keep it, and send it to the collector."""
        done = self._book.end(operation, time.time_ns() - operation.began, error)
        if done is not None and self._options.get("endpoint"):
            if self._exporter is None:
                from lading_trace.otlp import Exporter  # with the HTTP client: only in the daemon

                self._exporter = Exporter(self._options)
            self._exporter.add(done)

    def _timed(self, role: str, backend: str) -> Around:
        def call(hook: str, arguments: Mapping[str, Any]) -> Generator[None, Any, Any]:
            operation = current()
            if not operation:
                return (yield)
            began, counter, failure = time.time_ns(), time.perf_counter_ns(), ""
            try:
                return (yield)
            except BaseException as error:
                failure = f"{type(error).__name__}: {error}"
                raise
            finally:
                took = time.perf_counter_ns() - counter
                about = _attributes(arguments)
                span = Span(role, backend, hook, began, took, os.getpid(), failure, about)
                if self._in_daemon:
                    self._book.add(operation, span)
                else:
                    self._mailbox.put(operation, span)

        return call

    def _list(self, request: Request) -> Response:
        """Operations: the last ``last``, or those whose id or trace begins with ``id``."""
        from lading.http.messages import Response

        wanted = request.query.get("id")
        self._book.settle(wanted, SETTLE)
        found = self._book.ended()
        if wanted:
            found = [r for r in found if r.operation.id.startswith(wanted)] or [
                r for r in found if r.trace.startswith(wanted)
            ]
        last = request.query.integer("last")
        rows = [recording.as_json() for recording in (found[-last:] if last > 0 else found)]
        return Response.json({"recording": self._book.recording, "operations": rows})

    def _start(self, request: Request) -> Response:
        from lading.http.messages import Response

        self._book.start()
        return Response(204)

    def _stop(self, request: Request) -> Response:
        from lading.http.messages import Response

        self._book.stop()
        return Response(204)

    def _clear(self, request: Request) -> Response:
        from lading.http.messages import Response

        self._book.clear()
        return Response(204)


def _attributes(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What the call is about, by the names that OpenTelemetry and the contracts have."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, Container):
            found["container.id"] = value.id
        elif name in ("network", "endpoint") and hasattr(value, "id"):
            found[f"lading.{name}"] = str(value.id)
        elif name in _TELLING:
            found[f"lading.{name}"] = str(value)[:200]
    return found
