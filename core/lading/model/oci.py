"""OCI image documents (image-spec 1.1), with the members that Docker adds.

An image's id is the digest of its config's bytes as they came, so those bytes are kept and passed
on; these types are for reading them, and for writing new ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from lading.errors import Invalid

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

COMPRESSION_OF_LAYER = {
    LAYER: "", LAYER_GZIP: "gzip", LAYER_ZSTD: "zstd", DOCKER_LAYER: "",
    DOCKER_LAYER_GZIP: "gzip",
}  # fmt: skip


class Document(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """Base: camelCase members, unknown ones ignored, defaults not written."""


class Platform(Document, frozen=True):
    """``platform`` of a descriptor in an index."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")


class Descriptor(Document, frozen=True):
    """Content by digest (descriptor.md); ``size`` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""
    urls: list[str] = []


class Manifest(msgspec.Struct, rename="camel", frozen=True):
    """An image manifest (manifest.md)."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Index(msgspec.Struct, rename="camel", frozen=True):
    """An image index, or Docker's manifest list (image-index.md)."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class RootFS(msgspec.Struct, frozen=True):
    """``rootfs`` of a config: digests of the uncompressed layers, base first."""

    diff_ids: list[str] = []
    type: str = "layers"


class History(msgspec.Struct, omit_defaults=True, frozen=True):
    """One line of a config's history."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, omit_defaults=True, frozen=True):
    """An image config (config.md). ``config`` has Docker's container config as it stands."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str = ""
    config: dict[str, Any] | None = None
    rootfs: RootFS = RootFS()
    history: list[History] = []
    docker_version: str = ""
    container: str = ""
    container_config: dict[str, Any] | None = None
    comment: str = ""
    os_version: str = msgspec.field(name="os.version", default="")


def decode_config(data: bytes) -> ImageConfig:
    """Read a config. Raises Invalid, also for one that is not of an image with layers."""
    try:
        config = msgspec.json.decode(data, type=ImageConfig)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Invalid(f"image config: {error}") from error
    return config


def decode_manifest(data: bytes) -> Manifest:
    """Read an image manifest. Raises Invalid."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Invalid(f"image manifest: {error}") from error


def decode_index(data: bytes) -> Index:
    """Read an index. Raises Invalid."""
    try:
        return msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Invalid(f"image index: {error}") from error


def docker_manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """An image's manifest in Docker's schema 2, formatted as Docker does.

    The same image thus has the same digest, whoever writes its manifest.
    """
    kinds = {LAYER: DOCKER_LAYER, LAYER_GZIP: DOCKER_LAYER_GZIP}
    rows = [
        Descriptor(kinds.get(la.media_type, la.media_type), la.digest, la.size) for la in layers
    ]
    return _manifest(DOCKER_MANIFEST, DOCKER_CONFIG, config, rows)


def oci_manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """An image's manifest in OCI's form, formatted likewise."""
    kinds = {DOCKER_LAYER: LAYER, DOCKER_LAYER_GZIP: LAYER_GZIP}
    rows = [
        Descriptor(kinds.get(la.media_type, la.media_type), la.digest, la.size) for la in layers
    ]
    return _manifest(MANIFEST, CONFIG, config, rows)


def _manifest(kind: str, config_kind: str, config: bytes, layers: Sequence[Descriptor]) -> bytes:
    described = Descriptor(config_kind, digest_of(config), len(config))
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": _row(described),
        "layers": [_row(layer) for layer in layers],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=3)


def _row(descriptor: Descriptor) -> dict[str, object]:
    """A descriptor with its members in Docker's order."""
    return {
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "digest": descriptor.digest,
    }


def digest_of(data: bytes) -> str:
    """``sha256:<hex>`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain ID of each layer (config.md, "Layer ChainID"), base first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(diff_id if not chain else digest_of(f"{chain[-1]} {diff_id}".encode()))
    return chain
