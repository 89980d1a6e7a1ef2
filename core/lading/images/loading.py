"""``load``: images from a tar in any of the forms that exist.

* Docker archives (``manifest.json``), of ``docker save`` since 1.10, Podman and skopeo;
* OCI image layouts (``index.json``), of Docker 25 and later, Podman, skopeo, buildah;
* the archives of 2014 (a directory per layer, with ``json`` and ``layer.tar``; ``repositories``).

The order of entries is not fixed, so every file becomes a blob first; what no image turns out to
need is removed again. Nothing is trusted by its name: configs and layers are taken by the digest of
their content, and a layer is compared with its image's config when it is unpacked.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lading.archive import Archives, headers
from lading.archive.compression import SNIFF, Source, opened, sniff
from lading.archive.reader import Reader
from lading.errors import Invalid, NotFound
from lading.images.catalog import Catalog
from lading.images.records import NewLayer
from lading.model import legacy, oci, reference
from lading.model.platforms import architecture
from lading.store.blobs import Blobs

#: Documents are held in memory; an archive has no business with larger ones.
LARGEST_DOCUMENT = 16 << 20
_MOST_LINKS = 16

_MEDIA_TYPES = {"": oci.LAYER, "gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}


@dataclass
class _Contents:
    """What an archive holds: digest by path, and where links lead."""

    files: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def digest(self, path: str) -> str:
        """The blob of a path. Raises Invalid when the archive does not have it."""
        at = posixpath.normpath(path)
        for _ in range(_MOST_LINKS):
            if at in self.files:
                return self.files[at]
            if at not in self.links:
                break
            at = self.links[at]
        raise Invalid(f'the archive has no "{path}", which it refers to')


class Loading:
    """Loads archives; thread safe."""

    def __init__(self, catalog: Catalog, blobs: Blobs, archives: Archives) -> None:
        self._catalog, self._blobs, self._archives = catalog, blobs, archives

    def load(self, stream: Source) -> Iterator[tuple[str, list[str]]]:
        """Register everything; yields (image id, canonical tags to give) of each image.

        Raises Invalid for what is no archive of images. Blobs that no image needs are left to the
        store's collection: somebody else may be adding the same ones.
        """
        contents = _Contents()
        source, _ = opened(stream)
        self._spool(Reader(source), contents)
        found = list(self._images(contents))
        for config, layers, names in found:
            yield self._catalog.add(config, layers), names

    def _spool(self, reader: Reader, contents: _Contents) -> None:
        for entry in reader:
            path = posixpath.normpath(entry.name.decode("utf-8", "surrogateescape"))
            if entry.type == headers.FILE:
                with self._blobs.writer() as writer:
                    first = b""
                    for piece in reader.data():
                        first = first or bytes(piece[:SNIFF])
                        writer.write(piece)
                    digest = writer.digest
                    if self._blobs.has(digest):
                        writer.drop()
                    else:
                        writer.commit()
                contents.files[path] = digest
                contents.kinds[digest] = sniff(first)
            elif entry.type in (headers.SYMLINK, headers.LINK):
                target = entry.link.decode("utf-8", "surrogateescape")
                base = posixpath.dirname(path) if entry.type == headers.SYMLINK else ""
                contents.links[path] = posixpath.normpath(posixpath.join(base, target))
        reader.drain()

    def _small(self, digest: str) -> bytes:
        if self._blobs.size(digest) > LARGEST_DOCUMENT:
            raise Invalid(f"the archive has a document of {self._blobs.size(digest)} bytes")
        return self._blobs.read(digest)

    def _document(self, digest: str) -> Any:
        try:
            return msgspec.json.decode(self._small(digest))
        except msgspec.DecodeError as error:
            raise Invalid(f"the archive has a damaged document: {error}") from error

    def _images(self, contents: _Contents) -> Iterator[tuple[bytes, list[NewLayer], list[str]]]:
        if "manifest.json" in contents.files:
            yield from self._docker(contents)
        elif "index.json" in contents.files:
            yield from self._layout(contents)
        elif any(posixpath.basename(path) == "layer.tar" for path in contents.files):
            yield from self._legacy(contents)
        else:
            raise Invalid("the archive holds no images", hint="expected is one of docker save")

    def _docker(self, contents: _Contents) -> Iterator[tuple[bytes, list[NewLayer], list[str]]]:
        rows = self._document(contents.digest("manifest.json"))
        if not isinstance(rows, list):
            raise Invalid("manifest.json of the archive is not a list")
        for row in rows:
            try:
                config = self._small(contents.digest(row["Config"]))
                layers = [contents.digest(path) for path in row["Layers"] or ()]
                tags = [str(tag) for tag in row.get("RepoTags") or ()]
            except (KeyError, TypeError) as error:
                raise Invalid(f"manifest.json of the archive: {error}") from error
            yield config, self._layers(config, layers, contents), _canonical(tags)

    def _layout(self, contents: _Contents) -> Iterator[tuple[bytes, list[NewLayer], list[str]]]:
        index = oci.decode_index(self._small(contents.digest("index.json")))
        for descriptor in index.manifests:
            manifest = self._manifest(descriptor, contents)
            config = self._small(_blob(manifest.config, contents))
            layers = [_blob(layer, contents) for layer in manifest.layers]
            names = descriptor.annotations
            tag = names.get("io.containerd.image.name") or names.get(
                "org.opencontainers.image.ref.name", ""
            )
            # A tag alone, without a name, is no name that an image could have here.
            tags = [tag] if "/" in tag or ":" in tag else []
            yield config, self._layers(config, layers, contents), _canonical(tags)

    def _manifest(self, descriptor: oci.Descriptor, contents: _Contents) -> oci.Manifest:
        data = self._small(_blob(descriptor, contents))
        if descriptor.media_type not in (oci.INDEX, oci.DOCKER_INDEX):
            return oci.decode_manifest(data)
        rows = oci.decode_index(data).manifests
        ours = [
            r for r in rows if r.platform and r.platform.architecture == architecture()
        ] or rows  # fmt: skip
        for row in ours:
            if row.digest[7:] and f"blobs/sha256/{row.digest[7:]}" in contents.files:
                return self._manifest(row, contents)
        raise Invalid("the archive's index has no image for this platform")

    def _layers(self, config: bytes, digests: list[str], contents: _Contents) -> list[NewLayer]:
        diff_ids = oci.decode_config(config).rootfs.diff_ids
        if len(diff_ids) != len(digests):
            raise Invalid(f"the archive has {len(digests)} layers of an image with {len(diff_ids)}")
        return [
            self._layer(diff_id, digest, contents.kinds.get(digest, ""))
            for diff_id, digest in zip(diff_ids, digests, strict=True)
        ]

    def _layer(self, diff_id: str, digest: str, kind: str) -> NewLayer:
        known = self._catalog.layer(diff_id)
        if known is not None and self._blobs.has(known.digest):
            return NewLayer(diff_id, known.digest, known.media_type, known.size, known.length)
        if not kind and digest != diff_id:
            raise Invalid(f"the archive's layer {digest} is not the {diff_id} of its image")
        length = self._blobs.size(digest) if not kind else -1
        return NewLayer(diff_id, digest, _MEDIA_TYPES.get(kind, f"{oci.LAYER}+{kind}"), -1, length)

    def _legacy(self, contents: _Contents) -> Iterator[tuple[bytes, list[NewLayer], list[str]]]:
        """The archives of 2014: a chain of images, each a layer, by the ids of their parents."""
        documents = {
            posixpath.dirname(path): self._document(digest)
            for path, digest in contents.files.items()
            if posixpath.basename(path) == "json"
        }
        parents = {d.get("parent") for d in documents.values()}
        tops: dict[str, list[str]] = {i: [] for i in documents if i not in parents}
        if "repositories" in contents.files:
            for name, tags in self._document(contents.digest("repositories")).items():
                for tag, image in tags.items():
                    tops.setdefault(image, []).append(f"{name}:{tag}")
        for top, tags in tops.items():
            chain = _chain(top, documents)
            layers = []
            for image in chain:
                if not legacy.has_content(documents[image]):
                    continue
                digest = contents.digest(f"{image}/layer.tar")
                with self._blobs.open(digest) as blob:
                    read = self._archives.digest(blob.fileno())
                media_type = _MEDIA_TYPES[contents.kinds.get(digest, "")]
                layers.append(NewLayer(read.diff_id, digest, media_type, read.size, read.length))
            rows = [documents[image] for image in chain]
            config = legacy.config_of(rows, [layer.diff_id for layer in layers])
            yield config, layers, _canonical(tags)


def _blob(descriptor: oci.Descriptor, contents: _Contents) -> str:
    algorithm, _, value = descriptor.digest.partition(":")
    digest = contents.digest(f"blobs/{algorithm}/{value}")
    if digest != descriptor.digest:
        raise Invalid(f"the archive's {descriptor.digest} has the content of {digest}")
    return digest


def _canonical(tags: list[str]) -> list[str]:
    return [reference.parse(tag).with_default_tag().canonical for tag in tags]


def _chain(top: str, documents: Mapping[str, Any]) -> list[str]:
    chain: list[str] = []
    at: str | None = top
    while at:
        if at in chain:
            raise Invalid(f"the archive's image {at} is its own ancestor")
        if at not in documents:
            raise NotFound(f"the archive lacks the parent image {at}")
        chain.append(at)
        at = documents[at].get("parent")
    return chain[::-1]
