"""Clients on a container's standard streams: attached now, or waiting for the start."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from lading.containers import tell
from lading.containers.options import AttachOptions, LogOptions, Output
from lading.containers.records import Status
from lading.containers.table import Live, Pending
from lading.errors import Conflict, Invalid, Unsupported
from lading.monitor import AttachSpec, Follower, LogLine, read_logs
from lading.store.clock import timestamp
from lading.store.events import Events

_serial = itertools.count(1)

_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def frame(stream: str, data: bytes) -> bytes:
    """One frame of Docker's multiplexed stream."""
    return struct.pack(">BxxxI", _STREAMS[stream], len(data)) + data


def parse_detach_keys(text: str) -> bytes | None:
    """``ctrl-p,ctrl-q`` as bytes; None for the default. Raises Invalid."""
    if not text:
        return None
    keys = bytearray()
    for key in text.split(","):
        control = key.removeprefix("ctrl-")
        if len(key) == 1:
            keys += key.encode()
        elif control != key and len(control) == 1 and (control.isalpha() or control in "@[\\]^_"):
            keys.append(ord(control.upper()) & 0x1F)
        else:
            raise Invalid(f"Invalid detach keys ({text}) provided")
    return bytes(keys)


class AttachStream:
    """The stream of ``attach``; see :class:`lading.containers.options.Stream`."""

    def __init__(self, events: Events, live: Live, options: AttachOptions) -> None:
        self.tty = live.record.tty
        self._events = events
        self._live = live
        self._options = options
        self._keys = parse_detach_keys(options.detach_keys)

    def connect(self) -> socket.socket:
        """This side of a connection to the container."""
        ours, theirs = socket.socketpair()
        if self._options.logs:
            # More may have been logged than a socket takes before anybody reads from it.
            threading.Thread(target=self._give_away, args=(theirs,), daemon=True).start()
        else:
            self._give_away(theirs)
        return ours

    def _give_away(self, theirs: socket.socket) -> None:
        with theirs:
            self._give(theirs.fileno(), b"")

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """Give a client's socket to the monitor, now or at the start."""
        self._give(descriptor, head)

    def _give(self, descriptor: int, head: bytes) -> None:
        options, live = self._options, self._live
        tell.event(self._events, live.record, "attach")
        if options.logs:
            # Outside of the lock: a client that does not read must hold up nobody.
            write_all(descriptor, head)
            head = b""
            for chunk in self._logged():
                write_all(descriptor, chunk)
        if not options.stream:
            write_all(descriptor, head)
            return
        spec = AttachSpec(
            f"attach-{next(_serial)}",
            stdin=options.stdin and live.record.config.open_stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            detach_keys=self._keys,
            prelude=head,
        )
        # The lock keeps the start from passing between the head and the registration.
        with live.lock:
            if live.monitor is not None:
                live.monitor.attach_descriptor(descriptor, spec)
                return
            # The client asks for the start only when it has seen the head.
            write_all(descriptor, head)
            waiting = dataclasses.replace(spec, prelude=b"")
            live.attachments.append(Pending(os.dup(descriptor), waiting))

    def _logged(self) -> Iterator[bytes]:
        options = LogOptions(stdout=self._options.stdout, stderr=self._options.stderr)
        output = logs(self._live, options)
        try:
            yield from output.chunks
        finally:
            output.close()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def attach(events: Events, live: Live, options: AttachOptions) -> AttachStream:
    """Check and prepare. Raises Conflict as Docker words it."""
    record = live.record
    if record.state.status is Status.PAUSED:
        raise Conflict(f"container {record.id} is paused, unpause the container before attach")
    if record.state.status is Status.RESTARTING:
        raise Conflict(f"container {record.id} is restarting, wait until the container is running")
    if record.state.status is Status.REMOVING:
        raise Conflict(f"container {record.id} is being removed")
    return AttachStream(events, live, options)


def drop(live: Live) -> None:
    """Let go of the clients that wait for a start which will not come."""
    for pending in live.attachments:
        os.close(pending.descriptor)
    live.attachments.clear()


def logs(live: Live, options: LogOptions) -> Output:
    """What the container has written, as chunks for the wire."""
    record = live.record
    if not (options.stdout or options.stderr):
        raise Invalid("Bad parameters: you must choose at least one stream")
    if not record.log_path:
        raise Unsupported("configured logging driver does not support reading")
    follower = Follower() if options.follow else None
    lines = read_logs(
        Path(record.log_path),
        stdout=options.stdout,
        stderr=options.stderr,
        since=options.since,
        until=options.until,
        tail=options.tail,
        follow=follower,
    )
    if follower is not None:
        with live.lock:
            if live.monitor is None:
                follower.finish()
            else:
                live.followers.append(follower)
    return Output(
        _chunks(live, lines, options, follower),
        record.tty,
        follower.cancel if follower is not None else _nothing,
    )


def _nothing() -> None:
    """There is nothing to end: the reader does not wait."""


def _chunks(
    live: Live, lines: Iterator[LogLine], options: LogOptions, follower: Follower | None
) -> Iterator[bytes]:
    tty = live.record.tty
    try:
        for line in lines:
            data = _decorated(line, options)
            yield data if tty else frame(line.stream, data)
    finally:
        if follower is not None:
            with suppress(ValueError):
                live.followers.remove(follower)
            follower.close()


def _decorated(line: LogLine, options: LogOptions) -> bytes:
    data = line.data
    if options.details:
        pairs = ",".join(f"{quote(k)}={quote(v)}" for k, v in sorted(line.attributes.items()))
        data = f"{pairs} ".encode() + data
    if options.timestamps:
        data = f"{timestamp(line.time)} ".encode() + data
    return data
