"""Push: layers that the registry lacks, compressed on the way when they are not yet, then names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from lading.backends import Loaded
from lading.errors import NotFound
from lading.hooks.registry import (
    OutgoingImage,
    OutgoingLayer,
    PushedLayer,
    Registry,
    Remote,
    RemoteManifest,
    Stream,
)
from lading.images.images import Images
from lading.images.records import Image, Layer
from lading.model import oci
from lading.store.blobs import CHUNK

Emit = Callable[[Mapping[str, Any]], None]
CADENCE = 0.1
#: isal's fastest but one: what it saves in bytes no network on earth gives back in time.
LEVEL = 1

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
    ) -> RemoteManifest:
        """Store an image under tags; returns the manifest of the last one."""
        outgoing = self._outgoing(image, tags, remote)
        for layer in outgoing.layers:
            emit({"id": _short(layer.diff_id), "status": "Preparing"})
        parallel = 1 if "ordered-push" in backend.capabilities else self._parallel
        with ThreadPoolExecutor(parallel, "push") as pool:
            futures = [
                pool.submit(self._layer, backend, remote, outgoing, layer, emit)
                for layer in outgoing.layers
            ]
            pushed = [future.result() for future in futures]
        manifest = None
        for tag in tags:
            manifest = backend.hook.push_image(
                remote=remote, image=outgoing, layers=pushed, tag=tag
            )
            size = len(manifest.content)
            emit({"status": f"{tag}: digest: {manifest.digest} size: {size}"})
            aux = {"Tag": tag, "Digest": manifest.digest, "Size": size}
            emit({"progressDetail": {}, "aux": aux})
        assert manifest is not None
        return manifest

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
                progress = {"current": sent, "total": max(layer.size, 0)}
                emit(
                    {
                        "id": _short(layer.diff_id),
                        "status": "Pushing",
                        "progressDetail": progress,
                    }
                )

        pushed = backend.hook.push_layer(remote=remote, image=image, layer=layer, tell=tell)
        emit({"id": _short(layer.diff_id), "status": _STATES[pushed.state]})
        if pushed.digest != layer.diff_id:
            descriptor = oci.Descriptor(pushed.media_type, pushed.digest, pushed.size)
            self._images.catalog.remember_compressed(layer.diff_id, descriptor)
        return pushed

    def _outgoing(self, image: Image, tags: Sequence[str], remote: Remote) -> OutgoingImage:
        return OutgoingImage(
            image.id,
            image.config_bytes,
            [self._outgoing_layer(layer) for layer in image.layers],
            tags,
            self._manifest(image),
        )

    def _manifest(self, image: Image) -> RemoteManifest | None:
        """The manifest that the image came with: pushed again it keeps its digest."""
        for name in image.repo_digests:
            digest = name.rpartition("@")[2]
            try:
                content = self._images.blobs.read(digest)
                if oci.decode_manifest(content).config.digest == image.id:
                    kind = oci.decode_manifest(content).media_type or oci.MANIFEST
                    return RemoteManifest(digest, kind, content)
            except NotFound:
                continue
        return None

    def _outgoing_layer(self, layer: Layer) -> OutgoingLayer:
        blobs = self._images.blobs
        if layer.media_type != oci.LAYER:
            size = blobs.size(layer.digest)
            sent = (layer.digest, size)
            return OutgoingLayer(
                layer.diff_id, layer.digest, size, layer.media_type,
                lambda: blobs.open(layer.digest), lambda: sent,
            )  # fmt: skip
        current: list[_Compressing] = []

        def opened() -> Stream:
            current[:] = [_Compressing(blobs.open(layer.digest))]
            return current[0]

        def sent_now() -> tuple[str, int]:
            return current[0].result()

        known = self._images.catalog.compressed(layer.diff_id)
        digest, size = (known[0].digest, known[0].size) if known else ("", -1)
        return OutgoingLayer(layer.diff_id, digest, size, oci.LAYER_GZIP, opened, sent_now)


class _Compressing:
    """A layer read as gzip; the same bytes each time, so that its digest can be remembered."""

    def __init__(self, blob: BinaryIO) -> None:
        from isal import isal_zlib  # only the daemon that pushes needs it

        self._blob = blob
        self._compressor: Any = isal_zlib.compressobj(LEVEL, wbits=31)
        self._hash = hashlib.sha256()
        self._size = 0
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Some compressed bytes: as many as a piece of the layer makes."""
        while not self._ended:
            piece = self._blob.read(CHUNK)
            self._ended = not piece
            out: bytes = self._compressor.compress(piece) if piece else self._compressor.flush()
            if out:
                self._hash.update(out)
                self._size += len(out)
                return out
        return b""

    def close(self) -> None:
        """Close the layer."""
        self._blob.close()

    def result(self) -> tuple[str, int]:
        """Digest and size, once read to the end."""
        return f"sha256:{self._hash.hexdigest()}", self._size


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
