"""Push: layers that the registry lacks, compressed on the way when they are not yet, then names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, BinaryIO

from lading.archive.compression import Source, opened
from lading.backends import Loaded
from lading.errors import Cancelled, LadingError, NotFound
from lading.hooks.registry import (
    OutgoingImage,
    OutgoingLayer,
    PushedLayer,
    Registry,
    Remote,
    RemoteManifest,
    Stream,
)
from lading.images.downloads import CADENCE, Emit, short
from lading.images.images import Images
from lading.images.records import Image, Layer
from lading.model import oci
from lading.operations import carried
from lading.store.blobs import CHUNK, Blobs

#: isal's fastest but one: what it saves in bytes no network on earth gives back in time.
LEVEL = 1
#: Seconds between looks whether the client is still there.
PATIENCE = 0.5

#: What registries take as it is.
_AS_IT_IS = (
    oci.LAYER_GZIP,
    oci.LAYER_ZSTD,
    oci.DOCKER_LAYER_GZIP,
)
_STATES = {"pushed": "Pushed", "exists": "Layer already exists", "mounted": "Mounted"}


class Pushing:
    """Pushes images; thread safe."""

    def __init__(self, images: Images, parallel: int) -> None:
        self._images, self._parallel = images, max(parallel, 1)

    def push(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        image: Image,
        tags: Sequence[str],
        emit: Emit,
        gone: Callable[[], bool],
    ) -> RemoteManifest:
        """Store an image under tags; returns the manifest of the last one."""
        outgoing = self._outgoing(image, tags, remote)
        for layer in outgoing.layers:
            _tell(emit, layer, "Preparing")
        pushed = self._layers(backend, remote, outgoing, emit, gone)
        manifest = RemoteManifest("", "", b"")
        for tag in tags:
            manifest = backend.hook.push_image(
                remote=remote, image=outgoing, layers=pushed, tag=tag
            )
            size = len(manifest.content)
            if not manifest.digest:
                emit({"status": f"Pushed tag {tag} for image {short(image.id)}"})
                continue
            emit({"status": f"{tag}: digest: {manifest.digest} size: {size}"})
            aux = {"Tag": tag, "Digest": manifest.digest, "Size": size}
            emit({"progressDetail": {}, "aux": aux})
        return manifest

    def _layers(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        outgoing: OutgoingImage,
        emit: Emit,
        gone: Callable[[], bool],
    ) -> list[PushedLayer]:
        parallel = 1 if "ordered-push" in backend.capabilities else self._parallel

        def heard(message: Any) -> None:
            if gone():
                raise Cancelled("the client went away")
            emit(message)

        with ThreadPoolExecutor(parallel, "push") as pool:
            futures = [
                pool.submit(carried(self._layer), backend, remote, outgoing, layer, heard)
                for layer in outgoing.layers
            ]
            try:
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, PATIENCE, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    if gone():
                        raise Cancelled("the client went away")
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
            return [future.result() for future in futures]

    def _layer(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        emit: Emit,
    ) -> PushedLayer:
        told = 0.0

        def tell(sent: int) -> None:
            nonlocal told
            if (now := time.monotonic()) - told > CADENCE:
                told = now
                detail = {"current": sent, "total": max(layer.size, 0)}
                emit({"id": short(layer.diff_id), "status": "Pushing", "progressDetail": detail})

        pushed = backend.hook.push_layer(remote=remote, image=image, layer=layer, tell=tell)
        _tell(emit, layer, _STATES[pushed.state])
        if pushed.size >= 0 and pushed.digest not in ("", layer.diff_id, layer.digest):
            descriptor = oci.Descriptor(pushed.media_type, pushed.digest, pushed.size)
            self._images.catalog.remember_compressed(layer.diff_id, descriptor)
        return pushed

    def _outgoing(self, image: Image, tags: Sequence[str], remote: Remote) -> OutgoingImage:
        return OutgoingImage(
            image.id,
            image.config_bytes,
            [self._outgoing_layer(layer, remote) for layer in image.layers],
            tags,
            self._manifest(image),
        )

    def _manifest(self, image: Image) -> RemoteManifest | None:
        """The manifest that the image came with: pushed again it keeps its digest."""
        for name in image.repo_digests:
            digest = name.rpartition("@")[2]
            try:
                content = self._images.blobs.read(digest)
                manifest = oci.decode_manifest(content)
            except LadingError:
                continue
            if manifest.config.digest == image.id:
                return RemoteManifest(digest, manifest.media_type or oci.MANIFEST, content)
        return None

    def _sources(self, layer: Layer, remote: Remote) -> list[str]:
        """Other repositories of the registry that should have the layer."""
        found = []
        for name in self._images.catalog.repositories_with(layer.diff_id):
            domain, _, path = name.partition("/")
            if domain == remote.host and path != remote.repository:
                found.append(path)
        return found

    def _outgoing_layer(self, layer: Layer, remote: Remote) -> OutgoingLayer:
        blobs, sources = self._images.blobs, self._sources(layer, remote)
        if layer.media_type in _AS_IT_IS:
            size = blobs.size(layer.digest)
            sent = (layer.digest, size)
            return OutgoingLayer(
                layer.diff_id, layer.digest, size, layer.media_type,
                lambda: blobs.open(layer.digest), lambda: sent, sources,
            )  # fmt: skip
        compressing = _Compressing(blobs, layer.digest)
        known = self._images.catalog.compressed(layer.diff_id)
        digest, size = (known[0].digest, known[0].size) if known else ("", -1)
        return OutgoingLayer(
            layer.diff_id, digest, size, oci.LAYER_GZIP, compressing.open, compressing.sent, sources
        )


class _Compressing:
    """A layer as gzip; the same bytes each time it is opened, so that its digest is remembered."""

    def __init__(self, blobs: Blobs, digest: str) -> None:
        self._blobs, self._digest = blobs, digest
        self._last: _Gzip | None = None

    def open(self) -> Stream:
        """A new stream."""
        self._last = _Gzip(self._blobs.open(self._digest))
        return self._last

    def sent(self) -> tuple[str, int]:
        """Digest and size of the last stream, read to its end."""
        if self._last is None:
            raise NotFound(f"layer {self._digest} was not read yet")
        return self._last.result()


class _Gzip:
    def __init__(self, blob: BinaryIO) -> None:
        from isal import isal_zlib  # only the daemon that pushes needs it

        self._blob = blob
        self._plain: Source
        self._plain, _ = opened(blob)
        self._compressor: Any = isal_zlib.compressobj(LEVEL, wbits=31)
        self._hash = hashlib.sha256()
        self._size = 0
        self._rest = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Some compressed bytes."""
        while not self._rest and not self._ended:
            piece = self._plain.read(CHUNK)
            self._ended = not piece
            self._rest = self._compressor.compress(piece) if piece else self._compressor.flush()
        part, self._rest = self._rest[:size], self._rest[size:]
        self._hash.update(part)
        self._size += len(part)
        return part

    def close(self) -> None:
        """Close the layer."""
        self._blob.close()

    def result(self) -> tuple[str, int]:
        """Digest and size of what was read."""
        return f"sha256:{self._hash.hexdigest()}", self._size


def _tell(emit: Emit, layer: OutgoingLayer, status: str) -> None:
    emit({"id": short(layer.diff_id), "status": status, "progressDetail": {}})
