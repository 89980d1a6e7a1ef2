"""One connection to a container's streams, between raw HTTP and this process's descriptors."""

from __future__ import annotations

import os
import sys
import threading
from typing import Protocol

from lading.cli.errors import Failure
from lading.cli.streams.detach import DetachScanner, key_codes
from lading.cli.streams.terminal import RawMode
from lading.http.client import Upgraded

CHUNK = 64 * 1024
HEADER = 8
STDERR_FRAME = 2
SYSTEM_ERROR_FRAME = 3


class Attachment:
    """Copies stdin up and the container's output down until its end or the detach keys.

    With ``tty`` the output is one raw stream and the detach keys work; else it comes in frames
    that tell stdout from stderr.
    """

    def __init__(
        self, raw: Upgraded, *, tty: bool, stdin: bool, output: bool = True, detach_keys: str = ""
    ) -> None:
        self._raw = raw
        self._tty = tty
        self._stdin = stdin
        self._output = output
        self._scanner = DetachScanner(key_codes(detach_keys)) if tty and stdin else None
        self._input_done = threading.Event()
        self.detached = False

    def run(self) -> None:
        """Copy; returns at the end. ``detached`` tells whether the user left."""
        sys.stdout.flush()
        sys.stderr.flush()
        if not self._stdin:
            self._read_output()
            return
        with RawMode() if self._tty else _Unchanged():
            threading.Thread(target=self._write_input, daemon=True).start()
            if self._output:
                self._read_output()
            else:
                self._input_done.wait()

    def _write_input(self) -> None:
        try:
            while data := os.read(0, CHUNK):
                if self._scanner is not None:
                    data, self.detached = self._scanner.feed(data)
                if data:
                    self._raw.sendall(data)
                if self.detached:
                    # The container goes on; the reader below must stop waiting for it.
                    self._raw.shutdown()
                    return
            self._raw.shutdown_write()
        except OSError:
            pass  # the container has ended, or stdin is closed: the output tells the rest
        finally:
            self._input_done.set()

    def _read_output(self) -> None:
        try:
            if self._tty:
                while data := self._raw.recv(CHUNK):
                    write_all(1, data)
            else:
                copy_frames(self._raw)
        except ConnectionError:
            if not self.detached:
                raise


class _Unchanged:
    """Stands for raw mode where the terminal is left as it is."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it, past Python's buffers, so that output shows at once and in order."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Source(Protocol):
    """Where frames are read from: a raw connection or a response."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes; none at the end."""
        ...


def copy_frames(source: Source, *, raw: bool = False) -> None:
    """Write framed output to stdout and stderr; with ``raw`` there are no frames.

    Bytes are passed on as they come: a large frame is never held.
    """
    if raw:
        while data := source.recv(CHUNK):
            write_all(1, data)
        return
    buffer = b""
    left, target = 0, 1
    trouble = b""
    while True:
        if left == 0 and len(buffer) >= HEADER:
            kind, left = buffer[0], int.from_bytes(buffer[4:HEADER], "big")
            target = 2 if kind == STDERR_FRAME else 3 if kind == SYSTEM_ERROR_FRAME else 1
            buffer = buffer[HEADER:]
            continue
        if left and buffer:
            piece, buffer = buffer[:left], buffer[left:]
            left -= len(piece)
            if target == 3:
                trouble += piece
            else:
                write_all(target, piece)
            continue
        data = source.recv(CHUNK)
        if not data:
            break
        buffer += data
    if trouble:
        raise Failure(f"error from daemon in stream: {trouble.decode(errors='replace')}")
