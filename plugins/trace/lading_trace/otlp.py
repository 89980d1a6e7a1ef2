"""Operations as OpenTelemetry spans, sent to a collector by OTLP/HTTP in JSON.

The encoding is that of opentelemetry-proto 1.x, "OTLP/HTTP, JSON Protobuf Encoding": names in
lowerCamelCase, ids in hexadecimal, 64-bit numbers as strings. The SDK of OpenTelemetry is not used:
spans are complete when they get here, some from other processes, so nothing of it but the encoding
would be left, and it would bring protobuf and a second HTTP client into the daemon.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lading import __version__
from lading.errors import LadingError, Unavailable
from lading.http.client import Client
from lading_trace.spans import Recording, Span, parent_of

#: Recordings that wait for a collector that is slow or away; later ones are dropped.
WAITING = 1000
#: Seconds between the tries for one batch, and how long one may take.
RETRIES = (1.0, 4.0)
TIMEOUT = 10.0
#: What a collector answers when it is worth trying again (OTLP specification, "Retryable").
_RETRYABLE = frozenset((429, 502, 503, 504))
_SERVER, _INTERNAL = 2, 1
_OK, _ERROR = 1, 2
_ID = re.compile("[0-9a-f]{64}")

log = logging.getLogger(__name__)


class Exporter:
    """Sends recordings from a thread of its own; no operation waits for it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        url = urlsplit(options["endpoint"])
        self._base = f"{url.scheme}://{url.netloc}"
        self._path = url.path if url.path not in ("", "/") else "/v1/traces"
        self._headers = {str(k): str(v) for k, v in options.get("headers", {}).items()}
        self._service = options.get("service-name", "ladingd")
        self._waiting: queue.Queue[Recording] = queue.Queue(WAITING)
        threading.Thread(target=self._run, name="trace-export", daemon=True).start()

    def add(self, recording: Recording) -> None:
        """Have one sent; dropped when too many wait."""
        try:
            self._waiting.put_nowait(recording)
        except queue.Full:
            log.debug("trace: a span was dropped, the collector is too slow")

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < 100 and not self._waiting.empty():
                batch.append(self._waiting.get())
            try:
                self._send(encoded(batch, self._service))
            except Exception as error:
                log.warning("trace: %d operations were not exported: %s", len(batch), error)

    def _send(self, body: bytes) -> None:
        for pause in (*RETRIES, None):
            try:
                self._post(body)
                return
            except Unavailable:
                if pause is None:
                    raise
                time.sleep(pause)

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", **self._headers}
        with (
            Client(self._base, timeout=TIMEOUT) as client,
            client.request("POST", self._path, headers=headers, body=body) as response,
        ):
            text = response.read()[:200].decode(errors="replace")
        if response.status in _RETRYABLE:
            raise Unavailable(f"the collector answered {response.status} {text}")
        if response.status >= 300:
            raise LadingError(f"the collector refused the spans: {response.status} {text}")


def encoded(recordings: Sequence[Recording], service: str) -> bytes:
    """An ``ExportTraceServiceRequest`` in JSON."""
    spans = [span for recording in recordings for span in _spans(recording)]
    resource = {"service.name": service, "service.version": __version__}
    scope = {"name": "lading.hooks", "version": __version__}
    return msgspec.json.encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeSpans": [{"scope": scope, "spans": spans}],
                }
            ]
        }
    )


def _spans(recording: Recording) -> list[dict[str, Any]]:
    operation = recording.operation
    # An operation's id is random: its first half serves as the id of its own span.
    root = operation.id[:16]
    rows = [
        {
            "traceId": recording.trace,
            "spanId": root,
            "parentSpanId": parent_of(operation)[1],
            # A name is of a kind of operation; which object it was is in url.path.
            "name": _ID.sub("{id}", operation.name),
            "kind": _SERVER if "http.request.method" in operation.attributes else _INTERNAL,
            "startTimeUnixNano": str(operation.began),
            "endTimeUnixNano": str(operation.began + recording.took),
            "attributes": _attributes(operation.attributes),
            "status": _status(recording.error),
        }
    ]
    return rows + [_hook(recording, span, n, root) for n, span in enumerate(recording.spans)]


def _hook(recording: Recording, span: Span, number: int, root: str) -> dict[str, Any]:
    about = {
        "lading.role": span.role,
        "lading.backend": span.backend,
        "lading.hook": span.hook,
        "process.pid": str(span.pid),
        **span.attributes,
    }
    seed = f"{recording.operation.id}/{number}".encode()
    return {
        "traceId": recording.trace,
        "spanId": hashlib.sha256(seed).hexdigest()[:16],
        "parentSpanId": root,
        "name": f"{span.role}.{span.hook}",
        "kind": _INTERNAL,
        "startTimeUnixNano": str(span.began),
        "endTimeUnixNano": str(span.began + span.took),
        "attributes": _attributes(about),
        "status": _status(span.error),
    }


def _status(error: str) -> dict[str, Any]:
    return {"code": _ERROR, "message": error} if error else {"code": _OK}


def _attributes(rows: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in rows.items()]
