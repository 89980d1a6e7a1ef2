"""New images from what is at hand: a root file system as tar, or a container's changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from lading.archive import Applied, Archives, Hint
from lading.archive.compression import SNIFF, sniff
from lading.errors import Invalid
from lading.hooks.common import Mount
from lading.images.catalog import Catalog
from lading.images.changes import apply_changes
from lading.images.records import Image, NewLayer
from lading.model import oci, platforms
from lading.model.platforms import architecture
from lading.store.blobs import CHUNK, Blobs
from lading.store.clock import now

_MEDIA_TYPES = {"": oci.LAYER, "gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


def encode_config(config: dict[str, Any]) -> bytes:
    """An image config as bytes, always the same for the same content."""
    return msgspec.json.encode(config, order="deterministic")


class Making:
    """Makes images; thread safe."""

    def __init__(self, catalog: Catalog, blobs: Blobs, archives: Archives) -> None:
        self._catalog, self._blobs, self._archives = catalog, blobs, archives

    def import_(
        self, stream: Readable, *, changes: Sequence[str], message: str, platform: str
    ) -> str:
        """An image of one layer from a tar, compressed or not. Raises Invalid."""
        settings = apply_changes({}, changes)
        layer = self._stored_layer(stream)
        created = now()
        os_name, _, rest = platform.partition("/")
        config = {
            "architecture": rest.partition("/")[0] or architecture(),
            "os": os_name or "linux",
            "created": created,
            "config": settings,
            "container_config": settings,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": created, "comment": message}],
        }
        return self._catalog.add(encode_config(config), [layer])

    def measure(self, blob: int) -> Applied:
        """Read a layer's blob through: its digest, length and sizes."""
        return self._archives.digest(blob)

    def _stored_layer(self, stream: Readable) -> NewLayer:
        with self._blobs.writer() as writer:
            first = b""
            while piece := stream.read(CHUNK):
                first = first or piece[:SNIFF]
                writer.write(piece)
            if not first:
                raise Invalid("the archive is empty")
            digest = writer.commit()
        try:
            with self._blobs.open(digest) as blob:
                read = self.measure(blob.fileno())
        except BaseException:
            self._blobs.remove(digest)
            raise
        kind = sniff(first)
        media_type = _MEDIA_TYPES.get(kind, f"{oci.LAYER}+{kind}")
        return NewLayer(read.diff_id, digest, media_type, read.size, read.length)

    def layer(
        self,
        lower: Sequence[Mount],
        upper: Sequence[Mount],
        layer: Hint | None,
        latest: int | None = None,
        *,
        later: bool = False,
    ) -> NewLayer | None:
        """What ``upper`` changes against ``lower``; None for nothing. ``later`` as of blobs."""
        with self._blobs.writer() as writer:
            packed = self._archives.diff(lower, upper, writer.fileno(), layer, latest)
            if not packed.entries:
                return None
            writer.commit_written(packed.digest, later=later)
        return NewLayer(packed.digest, packed.digest, oci.LAYER, packed.size, packed.length)

    def commit(
        self,
        parent: Image | None,
        settings: dict[str, Any],
        lower: Sequence[Mount],
        upper: Sequence[Mount],
        layer: Hint | None,
        *,
        created_by: str,
        author: str,
        comment: str,
        container: str = "",
        container_config: Mapping[str, Any] | None = None,
        created: str = "",
    ) -> str:
        """An image with one more layer: what ``upper`` changes against ``lower``."""
        return self.derived(
            parent, settings, self.layer(lower, upper, layer),
            created_by=created_by, author=author, comment=comment, container=container,
            container_config=container_config, created=created,
        )  # fmt: skip

    def squashed(
        self, image: Image, base: Image | None, layer: NewLayer | None, created: str = ""
    ) -> str:
        """The image with what it adds to its base in a single layer; its history stays."""
        document: dict[str, Any] = msgspec.json.decode(image.config_bytes)
        created = created or now()
        kept = len(base.config.history) if base else 0
        lines = document.get("history") or []
        comment = f"merge {image.id} to {base.id}" if base else f"create new from {image.id}"
        merged: dict[str, Any] = {"created": created, "comment": comment}
        if layer is None:
            merged["empty_layer"] = True
        layers = [
            NewLayer(la.diff_id, la.digest, la.media_type, la.size, la.length)
            for la in (base.layers if base else ())
        ]
        layers += [layer] if layer else []
        document["created"] = created
        document["history"] = [
            *lines[:kept], *({**line, "empty_layer": True} for line in lines[kept:]), merged
        ]  # fmt: skip
        document["rootfs"] = {"type": "layers", "diff_ids": [la.diff_id for la in layers]}
        return self._catalog.add(encode_config(document), layers, base.id if base else "")

    def derived(
        self,
        parent: Image | None,
        settings: dict[str, Any],
        layer: NewLayer | None,
        *,
        created_by: str,
        author: str = "",
        comment: str = "",
        container: str = "",
        container_config: Mapping[str, Any] | None = None,
        created: str = "",
        platform: str = "",
    ) -> str:
        """An image that adds a layer (or only history) and settings to another.

        ``container`` and its config are of what it was made in, which Docker's clients show;
        ``platform`` is that of an image without a parent.
        """
        wanted = platforms.parse(platform)
        base: dict[str, Any] = {
            "architecture": wanted.architecture, "os": wanted.system, "variant": wanted.variant
        }  # fmt: skip
        if parent:
            base = msgspec.json.decode(parent.config_bytes)
        layers = [
            NewLayer(la.diff_id, la.digest, la.media_type, la.size, la.length)
            for la in (parent.layers if parent else ())
        ]
        if layer is not None:
            layers.append(layer)
        created = created or now()
        line = {"created": created, "created_by": created_by}
        if author:
            line["author"] = author
        if comment:
            line["comment"] = comment
        history: dict[str, Any] = {**line} if layer is not None else {**line, "empty_layer": True}
        config: dict[str, Any] = {
            "architecture": base.get("architecture") or wanted.architecture,
            "os": base.get("os") or wanted.system,
            "created": created,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [la.diff_id for la in layers]},
            "history": [*(base.get("history") or ()), history],
        }
        extra = {
            "author": author or base.get("author"),
            "container": container,
            "container_config": container_config,
            "variant": base.get("variant"),
        }
        config |= {name: value for name, value in extra.items() if value}
        return self._catalog.add(encode_config(config), layers, parent.id if parent else "")
