"""Values of the image store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lading.model import oci


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image.

    ``digest`` is that of the blob in the form it came (``media_type`` says which); ``size`` are the
    bytes of the files in it, -1 while it has never been unpacked; ``length`` those of its
    uncompressed tar, likewise.
    """

    diff_id: str
    chain_id: str
    digest: str
    media_type: str
    size: int = -1
    length: int = -1


@dataclass(frozen=True)
class Image:
    """An image that is here. ``created`` is RFC 3339; names are familiar ones."""

    id: str
    config_bytes: bytes
    layers: Sequence[Layer]
    repo_tags: Sequence[str] = ()
    repo_digests: Sequence[str] = ()
    parent: str = ""
    last_tagged: str = ""

    @cached_property
    def config(self) -> oci.ImageConfig:
        """The parsed config."""
        return oci.decode_config(self.config_bytes)

    @property
    def created(self) -> str:
        """When it was made; "" when the config does not say."""
        return self.config.created or ""

    @property
    def platform(self) -> tuple[str, str, str]:
        """System, architecture and variant."""
        return self.config.os, self.config.architecture, self.config.variant

    @property
    def size(self) -> int:
        """Bytes of all files of all layers."""
        return sum(max(layer.size, 0) for layer in self.layers)

    @property
    def top_chain(self) -> str:
        """The chain ID of the whole image, "" for one without layers."""
        return self.layers[-1].chain_id if self.layers else ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels in its config."""
        found = (self.config.config or {}).get("Labels") or {}
        return {str(k): str(v) for k, v in found.items()}


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer for :meth:`Images.create`: its blob is in the store."""

    diff_id: str
    digest: str
    media_type: str
    size: int = -1
    length: int = -1


@dataclass(frozen=True, slots=True)
class Deleted:
    """One line of what ``rmi`` did: exactly one of the two is set."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What ``image prune`` did."""

    deleted: Sequence[Deleted]
    space: int


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of ``history``: ``id`` is "<missing>" for layers that are no image here."""

    id: str
    created: str
    created_by: str
    tags: Sequence[str]
    size: int
    comment: str
