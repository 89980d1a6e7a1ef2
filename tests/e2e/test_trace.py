"""Which hooks the engine calls for a command, in which order, seen by the extension ``trace``."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left

pytestmark = pytest.mark.root

Call = tuple[str, str]


@pytest.fixture(scope="module")
def traced(daemon: Daemon) -> Iterator[Daemon]:  # that one stands first, it outlives this one
    flags = ("--extension=trace",)
    with nothing_left(), Daemon(*flags) as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        running.client("lading", "run", "--rm", "--network", "none", "busybox", "true")
        yield running


def traced_run(daemon: Daemon, *words: str, check: bool = True) -> list[dict[str, Any]]:
    """The operations that a command led to."""
    flags = ("trace", "run", "--format", "json", "-o", str(daemon.root / "trace.json"))
    daemon.client("lading", *flags, find_client("lading"), *words, check=check)
    found: list[dict[str, Any]] = json.loads((daemon.root / "trace.json").read_text())
    return found


def calls(operations: list[dict[str, Any]]) -> list[Call]:
    return [(span["role"], span["hook"]) for op in operations for span in op["spans"]]


def test_a_run_prepares_one_snapshot_and_creates_and_starts_one_container(traced: Daemon) -> None:
    found = traced_run(traced, "run", "-d", "--name", "x", "--network", "none", "busybox", "top")
    create, start = found
    (prepare,) = create["spans"]
    assert (prepare["role"], prepare["hook"]) == ("filesystem", "prepare")
    assert [c for c in calls([start]) if c[0] == "isolation"] == [
        ("isolation", "create"),
        ("isolation", "start"),
    ]
    identity = prepare["attributes"]["lading.key"]
    by_hook = {span["hook"]: span for span in start["spans"]}
    assert by_hook["create"]["attributes"]["container.id"] == identity
    assert by_hook["create"]["pid"] == by_hook["start"]["pid"] != prepare["pid"]
    assert by_hook["create"]["began"] < by_hook["start"]["began"]


def test_an_exec_calls_one_hook(traced: Daemon) -> None:
    traced.client("lading", "run", "-d", "--name", "e", "--network", "none", "busybox", "top")
    assert calls(traced_run(traced, "exec", "e", "true")) == [("isolation", "exec")]


def test_a_program_that_does_not_exist_shows_as_the_error_of_a_hook(traced: Daemon) -> None:
    found = traced_run(traced, "run", "--network", "none", "busybox", "/nothing", check=False)
    failed = [(s["hook"], s["error"]) for op in found for s in op["spans"] if s["error"]]
    assert len(failed) == 1
    assert failed[0][1].startswith("StartFailed: ")
    assert any(op["error"].startswith("400 ") for op in found)


def test_the_end_of_a_container_is_an_operation(traced: Daemon) -> None:
    traced.client("lading", "run", "--network", "none", "--name", "short", "busybox", "true")
    identity = traced.client("lading", "inspect", "-f", "{{.Id}}", "short").stdout.decode().strip()
    done = traced.client("lading", "trace", "show", "--last", "100", "--format", "json")
    ends = [
        op
        for op in json.loads(done.stdout)
        if op["name"] == "end of a container" and op["attributes"]["container.id"] == identity
    ]
    assert len(ends) == 1
    assert ("isolation", "delete") in calls(ends)


def test_stop_and_start(traced: Daemon) -> None:
    traced.client("lading", "trace", "stop")
    traced.client("lading", "trace", "clear")
    traced.client("lading", "run", "--rm", "--network", "none", "busybox", "true")
    listed = traced.client("lading", "trace", "ls").stdout.decode().splitlines()
    assert [line.split()[0] for line in listed] == ["OPERATION"]
    traced.client("lading", "trace", "start")
    traced_run(traced, "run", "--rm", "--network", "none", "busybox", "true")
    assert len(traced.client("lading", "trace", "ls").stdout.decode().splitlines()) > 2


def test_a_daemon_without_the_extension_says_so(daemon: Daemon) -> None:
    done = daemon.client("lading", "trace", "ls", check=False)
    assert done.returncode == 1
    assert b'add "trace" to its extensions' in done.stderr


def test_show_prints_a_table_and_draws_a_picture(traced: Daemon) -> None:
    traced_run(traced, "run", "--rm", "--network", "none", "busybox", "true")
    last = traced.client("lading", "trace", "ls").stdout.decode().splitlines()[-1].split()[0]
    table = traced.client("lading", "trace", "show", last).stdout.decode()
    assert "HOOK" in table
    picture = traced.client("lading", "trace", "show", last, "--format", "svg").stdout
    assert picture.startswith(b"<svg")


class Collector(BaseHTTPRequestHandler):
    """Keeps what is exported to it."""

    received: queue.SimpleQueue[bytes]

    def do_POST(self) -> None:
        self.received.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    Collector.received = queue.SimpleQueue()
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def exported(until: str) -> list[Span]:
    """Spans up to the first of that name."""
    spans: list[Span] = []
    while all(span.name != until for span in spans):
        body = Collector.received.get(timeout=30)
        request = json_format.Parse(body, ExportTraceServiceRequest())
        spans += request.resource_spans[0].scope_spans[0].spans
    return spans


def test_a_collector_gets_requests_with_their_hooks(daemon: Daemon, collector: HTTPServer) -> None:
    running = Daemon("--extension=trace")
    config = running.root / "lading.toml"
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    config.write_text(f'[extension.trace]\nendpoint = "{url}"\n')
    running.flags += (f"--config-file={config}",)
    with nothing_left(), running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        running.client("lading", "run", "--rm", "--network", "none", "busybox", "true")
        spans = exported(until="isolation.start")
    about = {span.name: {a.key: a.value.string_value for a in span.attributes} for span in spans}
    (root,) = (s for s in spans if s.name.startswith("POST ") and s.name.endswith("/start"))
    children = [s.name for s in spans if s.parent_span_id == root.span_id]
    assert children[-2:] == ["isolation.create", "isolation.start"]
    assert about["isolation.create"]["lading.backend"] == "native"
    assert about["filesystem.prepare"]["lading.backend"] == "overlay"
    assert len(about["isolation.create"]["container.id"]) == 64
