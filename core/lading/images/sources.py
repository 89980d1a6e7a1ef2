"""Where the layers of an image come from, for filesystem backends that fetch them themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lading.errors import Invalid
from lading.hooks.filesystem import LayerSource
from lading.images.records import Image
from lading.model import oci, reference
from lading.store.blobs import Blobs


def of_pull(names: Iterable[str], digests: Sequence[str], manifest: bytes) -> list[LayerSource]:
    """The sources of an image that is being pulled, the lowest layer's first.

    ``names`` are canonical. Empty when the protocol has no digests.
    """
    if not manifest or not all(digests):
        return []
    tagged = sorted(names, key=lambda name: "@" in name)
    if not tagged:
        return []
    notes = _annotations(manifest, digests)
    return [
        LayerSource(
            tagged[0],
            oci.digest_of(manifest),
            digest,
            tuple(digests[n + 1 :]),
            notes.get(digest, {}),
        )
        for n, digest in enumerate(digests)
    ]


def of_image(image: Image, blobs: Blobs) -> Mapping[str, LayerSource]:
    """The sources of an image that is here, by chain ID; empty for one that was made here."""
    for name in image.repo_digests:
        found = reference.parse(name)
        if not blobs.has(found.digest):
            continue
        with blobs.open(found.digest) as blob:
            content = blob.read()
        tags = [t for t in map(reference.parse, image.repo_tags) if t.name == found.name]
        names = [tag.canonical for tag in tags] or [found.canonical]
        sources = of_pull(names, [layer.digest for layer in image.layers], content)
        return dict(zip((layer.chain_id for layer in image.layers), sources, strict=False))
    return {}


def _annotations(manifest: bytes, digests: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    try:
        layers = oci.decode_manifest(manifest).layers
    except Invalid:
        # An older schema, or an index.
        return {}
    return {la.digest: la.annotations for la in layers if la.digest in digests}
