"""Spans, the operations that they belong to, and the last ones of these."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lading.hooks.extension import Operation


@dataclass(frozen=True, slots=True)
class Span:
    """One call of one hook. ``began`` in nanoseconds since 1970, ``took`` in nanoseconds."""

    role: str
    backend: str
    hook: str
    began: int
    took: int
    pid: int
    error: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Recording:
    """An operation with its spans; ``took`` is 0 until it has ended."""

    operation: Operation
    spans: list[Span] = field(default_factory=list)
    took: int = 0
    error: str = ""

    @property
    def trace(self) -> str:
        """The trace that it is part of: the client's, or its own."""
        return parent_of(self.operation)[0] or self.operation.id

    def as_json(self) -> dict[str, Any]:
        """The members as JSON, spans in the order of their begin."""
        return {
            "id": self.operation.id,
            "trace": self.trace,
            "name": self.operation.name,
            "began": self.operation.began,
            "took": self.took,
            "error": self.error,
            "attributes": dict(self.operation.attributes),
            "spans": [asdict(span) for span in sorted(self.spans, key=lambda s: s.began)],
        }


def parent_of(operation: Operation) -> tuple[str, str]:
    """Trace id and span id of a ``traceparent``; empty ones when there is none that holds."""
    parts = operation.parent.strip().split("-")
    if len(parts) < 4 or [len(p) for p in parts[:3]] != [2, 32, 16]:
        return "", ""
    try:
        known = int(parts[1], 16), int(parts[2], 16)
    except ValueError:
        return "", ""
    return (parts[1].lower(), parts[2].lower()) if all(known) else ("", "")


class Mailbox:
    """The directory in which processes of monitors leave their spans for the daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self) -> None:
        """Take spans from now on; what an earlier daemon left is dropped."""
        self.shut()
        self._directory.mkdir(mode=0o700)

    def shut(self) -> None:
        """Take no more spans."""
        try:
            for path in self._directory.iterdir():
                path.unlink()
            self._directory.rmdir()
        except FileNotFoundError:
            pass

    def put(self, operation_id: str, span: Span) -> None:
        """Leave a span; without effect while nothing is recorded."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            file = os.open(self._directory / operation_id, flags, 0o600)
        except OSError:
            return  # the daemon does not record; a hook must not fail for that
        try:
            # One write: lines of processes at the same time do not mix (write(2), O_APPEND).
            os.write(file, json.dumps(asdict(span)).encode() + b"\n")
        except OSError:
            pass  # no space: the span is lost
        finally:
            os.close(file)

    def take(self, operation_id: str) -> list[Span]:
        """The spans of an operation; they are gone from here then."""
        path = self._directory / operation_id
        try:
            lines = path.read_text().splitlines()
            path.unlink()
        except FileNotFoundError:
            return []
        return [Span(**json.loads(line)) for line in lines]


class Book:
    """What is being recorded, and the last operations that had spans. Thread safe."""

    def __init__(self, mailbox: Mailbox, keep: int) -> None:
        self._mailbox = mailbox
        self._keep = keep
        self._lock = threading.Condition()
        self._running: dict[str, Recording] = {}
        self._ended: OrderedDict[str, Recording] = OrderedDict()
        self.recording = False

    def start(self) -> None:
        """Record operations that begin from now on."""
        with self._lock:
            if not self.recording:
                self._mailbox.open()
                self.recording = True

    def stop(self) -> None:
        """Record no more; what was recorded stays."""
        with self._lock:
            self.recording = False
            self._running.clear()
            self._mailbox.shut()

    def clear(self) -> None:
        """Forget what was recorded."""
        with self._lock:
            self._ended.clear()

    def begin(self, operation: Operation) -> None:
        """An operation begins."""
        with self._lock:
            if self.recording:
                self._running[operation.id] = Recording(operation)

    def add(self, operation_id: str, span: Span) -> None:
        """A hook of it has returned; one that comes after the operation's end is kept as well."""
        with self._lock:
            recording = self._running.get(operation_id) or self._ended.get(operation_id)
            if recording is not None:
                recording.spans.append(span)

    def end(self, operation: Operation, took: int, error: str) -> Recording | None:
        """It is over; returns it when it had spans."""
        with self._lock:
            recording = self._running.pop(operation.id, None)
            self._lock.notify_all()
            if recording is None:
                return None
            recording.spans += self._mailbox.take(operation.id)
            if not recording.spans:
                return None
            recording.took, recording.error = max(took, 1), error
            self._ended[operation.id] = recording
            while len(self._ended) > self._keep:
                self._ended.popitem(last=False)
            return recording

    def settle(self, trace: str, seconds: float) -> None:
        """Wait until nothing of a trace runs: the last bytes are sent before an operation ends."""
        with self._lock:
            self._lock.wait_for(
                lambda: all(r.trace != trace for r in self._running.values()), seconds
            )

    def ended(self) -> list[Recording]:
        """The operations that are over, oldest first."""
        with self._lock:
            return list(self._ended.values())
