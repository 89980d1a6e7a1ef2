"""The extension by itself: options, spans that cross processes, picture, OTLP."""

from __future__ import annotations

import os
import threading
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lading import backends, operations
from lading.errors import NotFound
from lading.hooks import Context
from lading.operations import Operations
from lading_trace import Trace
from lading_trace.otlp import Exporter, encoded
from lading_trace.spans import Book, Mailbox, Recording, Span, parent_of
from lading_trace.waterfall import drawn

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def context(tmp_path: Path, **options: Any) -> Context:
    return Context("trace", tmp_path / "data", tmp_path / "run", options)


def loaded_vfs(tmp_path: Path, trace: Trace) -> Any:
    origin = next(o for o in backends.discover("filesystem") if o.name == "vfs")
    place = Context("vfs", tmp_path / "vfs", tmp_path / "vfs-run")
    (tmp_path / "run").mkdir(exist_ok=True)
    return backends.assemble(origin, place, [trace]).hook


def book(trace: Trace) -> Book:
    return trace._book


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"recordings": True}, 'no option "recordings"'),
        ({"keep": "many"}, '"keep" is no int'),
        ({"endpoint": "collector"}, "no URL"),
    ],
)
def test_a_wrong_option_is_told_by_probe(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    probe = Trace(context(tmp_path, **options)).probe()
    assert not probe.usable
    assert reason in probe.reason


def test_calls_in_the_course_of_an_operation_become_its_spans(tmp_path: Path) -> None:
    trace = Trace(context(tmp_path))
    filesystem = loaded_vfs(tmp_path, trace)
    filesystem.prepare(key="before", parent="", labels={})
    with Operations([trace]).of("test", {"a": "b"}):
        filesystem.prepare(key="k", parent="", labels={})
        filesystem.commit(key="k", name="n")
        with pytest.raises(NotFound):
            filesystem.remove(key="nothing")
    (recording,) = book(trace).ended()
    assert [(s.role, s.backend, s.hook) for s in recording.spans] == [
        ("filesystem", "vfs", "prepare"),
        ("filesystem", "vfs", "commit"),
        ("filesystem", "vfs", "remove"),
    ]
    assert recording.spans[1].attributes == {"lading.key": "k", "lading.name": "n"}
    assert recording.spans[2].error.startswith("NotFound: ")
    assert recording.took >= sum(s.took for s in recording.spans)


def test_the_operation_fails_with_its_error(tmp_path: Path) -> None:
    trace = Trace(context(tmp_path))
    filesystem = loaded_vfs(tmp_path, trace)
    with pytest.raises(NotFound), Operations([trace]).of("test", {}):
        filesystem.remove(key="nothing")
    (recording,) = book(trace).ended()
    assert "nothing" in recording.error


def test_threads_work_for_the_operation_that_started_them(tmp_path: Path) -> None:
    trace = Trace(context(tmp_path))
    filesystem = loaded_vfs(tmp_path, trace)
    with Operations([trace]).of("test", {}):
        call = operations.carried(filesystem.walk)
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert [s.hook for s in book(trace).ended()[0].spans] == ["walk"]


def test_spans_of_another_process_come_back(tmp_path: Path) -> None:
    ours = Trace(context(tmp_path))
    loaded_vfs(tmp_path, ours)
    theirs = Trace(context(tmp_path))  # as in the spawner: it wraps isolation only
    wrapped = theirs.wrap("isolation", "native")
    running = Operations([ours]).begin("test", {})
    pid = os.fork()
    if pid == 0:
        with operations.within(running.id):
            call = wrapped.start("container")  # type: ignore[attr-defined]
            next(call)
            try:
                call.send(None)
            except StopIteration:
                os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    running.end()
    (recording,) = book(ours).ended()
    assert [(s.hook, s.pid) for s in recording.spans] == [("start", pid)]
    assert list((tmp_path / "run" / "spans").iterdir()) == []


def test_nothing_is_kept_while_stopped(tmp_path: Path) -> None:
    trace = Trace(context(tmp_path, recording=False))
    filesystem = loaded_vfs(tmp_path, trace)
    with Operations([trace]).of("test", {}):
        filesystem.walk()
    mailbox = Mailbox(tmp_path / "run" / "spans")
    mailbox.put("x", Span("r", "b", "h", 0, 0, 0))
    assert book(trace).ended() == []
    assert not (tmp_path / "run" / "spans").exists()


def test_only_the_last_operations_are_kept(tmp_path: Path) -> None:
    trace = Trace(context(tmp_path, keep=2))
    filesystem = loaded_vfs(tmp_path, trace)
    for number in range(4):
        with Operations([trace]).of(str(number), {}):
            filesystem.walk()
    assert [r.operation.name for r in book(trace).ended()] == ["2", "3"]


@pytest.mark.parametrize(
    "header", ["", "nonsense", "00-xyz-1-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
def test_a_bad_traceparent_is_none(header: str) -> None:
    assert parent_of(Operations().begin("x", {}, header)._operation) == ("", "")


def recording(parent: str = "") -> Recording:
    operation = Operations().begin("POST /c/" + "a" * 64, {"http.request.method": "POST"}, parent)
    spans = [
        Span("filesystem", "overlay", "prepare", operation._operation.began + 1000, 500, 1),
        Span(
            "isolation", "native", "create", operation._operation.began + 2000, 9000, 2, "<no> & no"
        ),
    ]
    return Recording(operation._operation, spans, 20000, "409 taken")


def test_the_picture_is_well_formed_and_has_a_bar_for_each_call() -> None:
    root = ET.fromstring(drawn([recording().as_json()]))
    groups = root.findall("{http://www.w3.org/2000/svg}g")
    titles = [g.findtext("{http://www.w3.org/2000/svg}title", "") for g in groups]
    assert len(groups) == 3
    assert titles[1].startswith("filesystem.prepare (overlay): 0.001 ms")
    assert "<no> & no" in titles[2]


def test_what_is_exported_is_otlp() -> None:
    request = json_format.Parse(encoded([recording(CLIENT)], "me"), ExportTraceServiceRequest())
    (resource,) = request.resource_spans
    assert ("service.name", "me") in [
        (a.key, a.value.string_value) for a in resource.resource.attributes
    ]
    root, prepare, create = resource.scope_spans[0].spans
    assert root.name == "POST /c/{id}"
    assert (root.status.code, root.status.message) == (2, "409 taken")
    assert prepare.parent_span_id == create.parent_span_id == root.span_id
    assert len({root.span_id, prepare.span_id, create.span_id}) == 3
    assert prepare.end_time_unix_nano - prepare.start_time_unix_nano == 500
    about = {a.key: a.value.string_value for a in create.attributes}
    assert (about["lading.role"], about["lading.backend"]) == ("isolation", "native")


class Collector(BaseHTTPRequestHandler):
    bodies: list[tuple[str, str, bytes]]
    answers: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.path, self.headers.get("Authorization", ""), body))  # type: ignore[attr-defined]
        answers = self.server.answers  # type: ignore[attr-defined]
        self.send_response(answers.pop(0) if answers else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.came.release()  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_spans_reach_the_collector_also_when_it_was_busy_at_first() -> None:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    server.bodies, server.answers = [], [503]  # type: ignore[attr-defined]
    server.came = threading.Semaphore(0)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        exporter = Exporter({"endpoint": url, "headers": {"Authorization": "Bearer x"}})
        exporter.add(recording())
        for _ in range(2):
            assert server.came.acquire(timeout=30)  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    first, second = server.bodies  # type: ignore[attr-defined]
    assert first == second
    assert first[:2] == ("/v1/traces", "Bearer x")
