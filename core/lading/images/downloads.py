"""Downloads of single layers: each once at a time, taken up where it broke, verified.

A layer with a digest is written under a name made of that, so that a later pull, also after a
crash, goes on from what is here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lading.backends import Loaded
from lading.errors import Cancelled, Invalid, Unavailable, Unsupported
from lading.hooks.registry import Registry, Remote, RemoteLayer, Stream
from lading.store.blobs import CHUNK, Blobs, BlobWriter

Emit = Callable[[Mapping[str, Any]], None]

#: Attempts without a single new byte after which a download is given up, and with some.
ATTEMPTS = 5
MOST_ATTEMPTS = 100
#: The first pause after a break, in seconds; it doubles up to the longest.
PAUSE = 0.2
LONGEST_PAUSE = 5.0
#: Seconds between progress messages of one layer, and between looks whether to stop.
CADENCE = 0.1


class Stop:
    """Ends the downloads of one pull; thread safe."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()

    def set(self) -> None:
        """Stop: streams that wait for a silent registry are closed."""
        self._event.set()
        with self._lock:
            for stream in self._streams:
                stream.close()

    def check(self) -> None:
        """Raise Cancelled when it is set."""
        if self._event.is_set():
            raise Cancelled("the pull was cancelled")

    def wait(self, seconds: float) -> None:
        """Sleep. Raises Cancelled."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def closing(self, stream: Stream) -> Iterator[Stream]:
        """Close the stream at the end, or when it is set."""
        with self._lock:
            self._streams.add(stream)
        try:
            self.check()
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)
            stream.close()


class Turns:
    """One at a time for each key, whoever wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._held: dict[str, threading.Lock] = {}

    @contextmanager
    def turn(self, key: str, stop: Stop) -> Iterator[None]:
        """Wait until nobody else has the key. Raises Cancelled."""
        with self._lock:
            held = self._held.setdefault(key, threading.Lock())
            self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            while not held.acquire(timeout=CADENCE):
                stop.check()
            try:
                yield
            finally:
                held.release()
        finally:
            with self._lock:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key], self._held[key]

    def wanted(self, key: str) -> bool:
        """Whether somebody else waits for a key that the caller has."""
        with self._lock:
            return self._waiting.get(key, 0) > 1


class _BrokenError(Exception):
    """The stream ended before the layer did; ``__cause__`` tells why."""


class Download:
    """One layer of one pull."""

    def __init__(
        self,
        blobs: Blobs,
        backend: Loaded[Registry],
        remote: Remote,
        layer: RemoteLayer,
        emit: Emit,
        stop: Stop,
    ) -> None:
        self._blobs, self._backend, self._remote = blobs, backend, remote
        self._layer, self._emit, self._stop = layer, emit, stop
        self._label = short(layer.digest or layer.key)
        self._told = 0.0

    def fetch(self, wanted_by_others: Callable[[], bool]) -> str:
        """Fetch it; returns the digest of the blob.

        Raises Cancelled (what is here is dropped then, unless others want it), Invalid for content
        that is not what it should be, Unavailable, OSError from the disk.
        """
        digest = self._layer.digest
        name = f"pull-{digest.replace(':', '-')}" if digest else ""
        with self._blobs.writer(digest, name) as writer:
            resumed = writer.offset > 0
            try:
                self._read_all(writer)
                self._tell("Verifying Checksum")
                found = self._committed(writer, resumed)
            except Cancelled:
                if not wanted_by_others():
                    writer.drop()
                raise
        self._tell("Download complete")
        return found

    def _committed(self, writer: BlobWriter, resumed: bool) -> str:
        size = self._layer.size
        if 0 <= size != writer.offset:
            offset = writer.offset
            writer.drop()
            raise Invalid(f"layer {self._label} has {offset} bytes where {size} are expected")
        if resumed and self._layer.digest and writer.digest != self._layer.digest:
            # What an earlier pull has left may be at fault: once more from the start.
            writer.restart()
            self._read_all(writer)
        try:
            return writer.commit()
        except Invalid as error:
            raise Invalid(f"layer {self._label}: {error.message}") from error

    def _read_all(self, writer: BlobWriter) -> None:
        idle = 0
        for _ in range(MOST_ATTEMPTS):
            before = writer.offset
            try:
                self._attempt(writer)
                return
            except (_BrokenError, Unavailable) as error:
                idle = 0 if writer.offset > before else idle + 1
                if idle >= ATTEMPTS:
                    reason = error.__cause__ or error
                    raise Unavailable(f"layer {self._label} broke off: {reason}") from error
                pause = min(PAUSE * 2 ** max(idle - 1, 0), LONGEST_PAUSE)
                self._tell(f"Retrying in {pause:.1f} seconds")
                self._stop.wait(pause)
        raise Unavailable(f"layer {self._label} broke off {MOST_ATTEMPTS} times")

    def _attempt(self, writer: BlobWriter) -> None:
        size = self._layer.size
        if 0 <= size < writer.offset:
            writer.restart()
        if size == writer.offset and size:
            return
        with self._stop.closing(self._opened(writer)) as stream:
            while piece := self._read(stream):
                writer.write(piece)
                if 0 <= size < writer.offset:
                    writer.drop()
                    raise Invalid(f"layer {self._label} is longer than the {size} bytes expected")
                self._progress(writer.offset)
        if writer.offset < size:
            reason = OSError(f"the stream ended at {writer.offset} of {size} bytes")
            raise _BrokenError from reason

    def _opened(self, writer: BlobWriter) -> Stream:
        self._stop.check()
        hook = self._backend.hook
        try:
            return hook.open_blob(remote=self._remote, layer=self._layer, offset=writer.offset)
        except Unsupported:
            if not writer.offset:
                raise
            writer.restart()
            return hook.open_blob(remote=self._remote, layer=self._layer, offset=0)

    def _read(self, stream: Stream) -> bytes:
        try:
            piece = stream.read(CHUNK)
        except Exception as error:
            # A stream that was closed in the middle of a read may fail in any way.
            self._stop.check()
            if isinstance(error, OSError):
                raise _BrokenError from error
            raise
        self._stop.check()
        return piece

    def _progress(self, offset: int) -> None:
        if (now := time.monotonic()) - self._told > CADENCE:
            self._told = now
            detail = {"current": offset, "total": max(self._layer.size, 0)}
            self._emit({"id": self._label, "status": "Downloading", "progressDetail": detail})

    def _tell(self, status: str) -> None:
        self._emit({"id": self._label, "status": status, "progressDetail": {}})


def short(digest: str) -> str:
    """How messages name a layer."""
    return digest.removeprefix("sha256:")[:12]
