"""Pull: layers side by side, each fetched once however many pulls want it, verified, unpacked.

A layer that breaks off is taken up where it broke, also by another pull after a crash: the part
that is here has a name made of the layer's digest.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from lading.archive.compression import SNIFF, sniff
from lading.backends import Loaded
from lading.errors import Cancelled, Invalid, LadingError, NotFound, Unavailable, Unsupported
from lading.hooks.registry import Registry, Remote, RemoteImage, RemoteLayer
from lading.images.images import Images
from lading.images.making import encode_config
from lading.images.records import NewLayer
from lading.model import oci
from lading.store.blobs import CHUNK, BlobWriter

Emit = Callable[[Mapping[str, Any]], None]

ATTEMPTS = 6
#: Seconds between progress messages of one layer.
CADENCE = 0.1

_MEDIA_TYPES = {"": oci.LAYER, "gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought; ``fresh`` when the image was not here before."""

    image: str
    digest: str
    fresh: bool


class Pulling:
    """Pulls images; thread safe."""

    def __init__(self, images: Images, parallel: int) -> None:
        self._images, self._parallel = images, max(parallel, 1)
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def pull(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        reference: str,
        platform: str,
        names: Callable[[str], Sequence[str]],
        emit: Emit,
    ) -> Pulled:
        """Fetch an image and register it under ``names(digest)``."""
        found = backend.hook.resolve(remote=remote, reference=reference, platform=platform)
        with self._images.adding():
            layers = self._fetch_all(backend, remote, found, emit)
            config = _completed(found.config, layers)
            image_id = oci.digest_of(config)
            fresh = not self._known(image_id)
            if found.manifest is not None:
                self._images.blobs.write(found.manifest.content)
            for layer in layers:
                emit({"id": _short(layer.digest), "status": "Extracting"})
            self._images.create(config, layers, names(found.digest))
            for layer in layers:
                emit({"id": _short(layer.digest), "status": "Pull complete"})
        return Pulled(image_id, found.digest, fresh)

    def _known(self, image_id: str) -> bool:
        try:
            self._images.get(image_id)
        except NotFound:
            return False
        return True

    def _fetch_all(
        self, backend: Loaded[Registry], remote: Remote, found: RemoteImage, emit: Emit
    ) -> list[NewLayer]:
        diff_ids = oci.decode_config(found.config).rootfs.diff_ids
        if diff_ids and len(diff_ids) != len(found.layers):
            raise Invalid(f"the image has {len(found.layers)} layers, its config {len(diff_ids)}")
        stop = threading.Event()
        with ThreadPoolExecutor(self._parallel, "pull") as pool:
            futures = [
                pool.submit(
                    self._layer, backend, remote, layer, diff_ids[n] if diff_ids else "", emit, stop
                )
                for n, layer in enumerate(found.layers)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                for future in futures:
                    future.cancel()
                raise

    def _layer(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        layer: RemoteLayer,
        diff_id: str,
        emit: Emit,
        stop: threading.Event,
    ) -> NewLayer:
        with self._locks[layer.digest or layer.key]:
            known = self._images.catalog.layer_by_digest(layer.digest) if layer.digest else None
            if known is None and diff_id:
                known = self._images.catalog.layer(diff_id)
            if known is not None and self._images.blobs.has(known.digest):
                emit({"id": _short(layer.digest or known.digest), "status": "Already exists"})
                return NewLayer(
                    known.diff_id, known.digest, known.media_type, known.size, known.length
                )
            digest = layer.digest
            if not digest or not self._images.blobs.has(digest):
                emit({"id": _short(digest or layer.key), "status": "Pulling fs layer"})
                digest = self._download(backend, remote, layer, emit, stop)
            return self._described(layer, digest, diff_id)

    def _described(self, layer: RemoteLayer, digest: str, diff_id: str) -> NewLayer:
        with self._images.blobs.open(digest) as blob:
            kind = sniff(blob.read(SNIFF))
        media_type = _MEDIA_TYPES.get(kind, f"{oci.LAYER}+{kind}")
        if diff_id:
            length = self._images.blobs.size(digest) if not kind else -1
            return NewLayer(diff_id, digest, media_type, -1, length)
        read = self._images.measure(digest)
        return NewLayer(read.diff_id, digest, media_type, read.size, read.length)

    def _download(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        layer: RemoteLayer,
        emit: Emit,
        stop: threading.Event,
    ) -> str:
        name = f"pull-{layer.digest.replace(':', '-')}" if layer.digest else ""
        with self._images.blobs.writer(layer.digest, name) as writer:
            for attempt in range(ATTEMPTS):
                try:
                    self._attempt(backend, remote, layer, writer, emit, stop)
                    break
                except (OSError, Unavailable) as error:
                    if attempt == ATTEMPTS - 1:
                        raise Unavailable(
                            f"layer {_short(layer.digest or layer.key)} broke off "
                            f"{ATTEMPTS} times: {error}"
                        ) from error
                    status = f"Retrying in {2**attempt * 0.2:.1f} seconds"
                    emit({"id": _short(layer.digest or layer.key), "status": status})
                    if stop.wait(2**attempt * 0.2):
                        raise Cancelled("the pull was cancelled") from error
            if layer.size >= 0 and writer.offset != layer.size:
                offset = writer.offset
                writer.drop()
                raise Invalid(
                    f"layer {layer.digest} has {offset} bytes where {layer.size} are expected"
                )
            emit({"id": _short(layer.digest or layer.key), "status": "Verifying Checksum"})
            digest = writer.commit()
            emit({"id": _short(layer.digest or layer.key), "status": "Download complete"})
        return digest

    def _attempt(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        layer: RemoteLayer,
        writer: BlobWriter,
        emit: Emit,
        stop: threading.Event,
    ) -> None:
        if 0 <= layer.size <= writer.offset and writer.offset:
            if writer.offset > layer.size:
                writer.restart()
            else:
                return
        try:
            stream = backend.hook.open_blob(remote=remote, layer=layer, offset=writer.offset)
        except Unsupported:
            writer.restart()
            stream = backend.hook.open_blob(remote=remote, layer=layer, offset=0)
        told = 0.0
        try:
            while piece := stream.read(CHUNK):
                writer.write(piece)
                if 0 <= layer.size < writer.offset:
                    raise Invalid(f"layer {layer.digest} is longer than its {layer.size} bytes")
                if stop.is_set():
                    raise Cancelled("the pull was cancelled")
                if (now := time.monotonic()) - told > CADENCE:
                    told = now
                    progress = {"current": writer.offset, "total": max(layer.size, 0)}
                    emit(
                        {
                            "id": _short(layer.digest or layer.key),
                            "status": "Downloading",
                            "progressDetail": progress,
                        }
                    )
        finally:
            stream.close()
        if writer.offset < layer.size:
            raise OSError(f"the stream ended at {writer.offset} of {layer.size} bytes")


def _completed(config: bytes, layers: Sequence[NewLayer]) -> bytes:
    """The config as it came, or with the diff IDs that a protocol without digests lacks."""
    if oci.decode_config(config).rootfs.diff_ids or not layers:
        return config
    document: dict[str, Any] = msgspec.json.decode(config)
    document["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    return encode_config(document)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def is_transient(error: BaseException) -> bool:
    """Whether another source of the same image may do better."""
    return isinstance(error, (OSError, Unavailable, NotFound)) or (
        isinstance(error, LadingError) and error.status >= 500
    )
