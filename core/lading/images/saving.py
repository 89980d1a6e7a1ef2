"""``save``: images as one tar that Docker, Podman and skopeo load.

It is an OCI image layout (image-spec, "image-layout.md") and a Docker archive at once: both
``index.json`` and ``manifest.json`` point into ``blobs/sha256/``. Layers are uncompressed, under
their diff IDs, as ``docker save`` has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lading.archive import headers
from lading.archive.compression import CHUNK, Source, opened
from lading.archive.headers import BLOCK, Entry
from lading.errors import LadingError
from lading.images.records import Image, Layer
from lading.model import oci, reference
from lading.store.blobs import Blobs

#: containerd's annotation of a whole name; OCI's own holds the tag alone.
_NAME = "io.containerd.image.name"
_REF = "org.opencontainers.image.ref.name"


def save(images: Sequence[tuple[Image, Sequence[str]]], blobs: Blobs) -> Iterator[bytes]:
    """The archive in pieces: images, each with the (familiar) tags it is saved under."""
    done: set[str] = set()
    manifests: list[dict[str, Any]] = []
    docker_manifest: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    yield from _directories()
    for image, tags in images:
        manifest = _manifest(image)
        yield from _blob(image.id, image.config_bytes, done)
        yield from _blob(oci.digest_of(manifest), manifest, done)
        for layer in image.layers:
            if layer.diff_id not in done:
                done.add(layer.diff_id)
                yield from _layer(layer, blobs)
        manifests += _index_rows(manifest, tags)
        docker_manifest.append(_docker_row(image, tags))
        for tag in tags:
            name, _, version = tag.rpartition(":")
            if image.layers:
                repositories.setdefault(name, {})[version] = image.layers[-1].diff_id[7:]
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": manifests}
    yield from _json("index.json", index)
    yield from _json("manifest.json", docker_manifest)
    yield from _json("oci-layout", {"imageLayoutVersion": "1.0.0"})
    if repositories:
        yield from _json("repositories", repositories)
    yield bytes(2 * BLOCK)


def _manifest(image: Image) -> bytes:
    layers = [
        {"mediaType": oci.LAYER, "digest": la.diff_id, "size": la.length} for la in image.layers
    ]
    config = {"mediaType": oci.CONFIG, "digest": image.id, "size": len(image.config_bytes)}
    document = {
        "schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": layers,
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":")).encode()


def _index_rows(manifest: bytes, tags: Sequence[str]) -> Iterator[dict[str, Any]]:
    row = {
        "mediaType": oci.MANIFEST, "digest": oci.digest_of(manifest), "size": len(manifest),
    }  # fmt: skip
    for tag in tags:
        name = reference.parse(tag)
        yield {**row, "annotations": {_NAME: name.canonical, _REF: name.tag}}
    if not tags:
        yield row


def _docker_row(image: Image, tags: Sequence[str]) -> dict[str, Any]:
    return {
        "Config": f"blobs/sha256/{image.id[7:]}",
        "RepoTags": list(tags) or None,
        "Layers": [f"blobs/sha256/{la.diff_id[7:]}" for la in image.layers],
    }


def _directories() -> Iterator[bytes]:
    for name in (b"blobs/", b"blobs/sha256/"):
        yield headers.build(Entry(name, headers.DIRECTORY, 0o755))


def _json(name: str, document: object) -> Iterator[bytes]:
    yield from _file(name, json.dumps(document, separators=(",", ":")).encode())


def _blob(digest: str, content: bytes, done: set[str]) -> Iterator[bytes]:
    if digest not in done:
        done.add(digest)
        yield from _file(f"blobs/sha256/{digest[7:]}", content)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield headers.build(Entry(name.encode(), size=len(content)))
    yield content + bytes(-len(content) % BLOCK)


def _layer(layer: Layer, blobs: Blobs) -> Iterator[bytes]:
    """A layer's uncompressed tar; its length is known, since the header goes first."""
    yield headers.build(Entry(f"blobs/sha256/{layer.diff_id[7:]}".encode(), size=layer.length))
    with blobs.open(layer.digest) as blob:
        source: Source = blob
        if layer.digest != layer.diff_id:
            source, _ = opened(blob)
        left = layer.length
        while left > 0 and (piece := source.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece
    if left:
        raise LadingError(f"layer {layer.digest} is {left} bytes shorter than recorded")
    yield bytes(-layer.length % BLOCK)
