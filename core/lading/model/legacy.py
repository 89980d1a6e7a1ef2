"""Images of 2014: one JSON document per layer, with an id and a parent's, and the way to and from.

An OCI image becomes a chain of documents, one per line of its history, with ids that are computed
from the content, so that the same image always becomes the same chain. The last document carries
the config verbatim (:data:`VERBATIM`), from which the very same image is made again. A line
without a layer is marked ``throwaway``, as Docker 1.10 marked it for its older peers.

A chain that some other program has made becomes the config that Docker 1.10 would have made of it.

Sources: image/image.go of Docker 1.0, image/v1/imagev1.go of Docker 1.10.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lading.errors import Invalid

#: The member of a chain's last document that holds the OCI config as text.
VERBATIM = "lading.config"

#: The layer of a link without content: a gzip of an empty tar, in the bytes that all programs sent.
EMPTY_LAYER = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")

#: Members that say what an image of one layer is, and mean nothing for a config.
_LAYER_MEMBERS = frozenset(("id", "parent", "Size", "parent_id", "layer_id", "throwaway", VERBATIM))
_ID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{16}")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LegacyLayer:
    """One link of a chain; ``diff_id`` is "" for one without content of its own."""

    id: str
    document: bytes
    diff_id: str


def is_legacy_id(text: str) -> bool:
    """Whether registries of 2014 take it for an image's id."""
    return bool(_ID.fullmatch(text))


def encode(document: Document) -> bytes:
    """A document or config as bytes, always the same for the same content."""
    return msgspec.json.encode(document, order="deterministic")


def decode(data: bytes) -> dict[str, Any]:
    """Read a document. Raises Invalid."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Invalid(f"image document: {error}") from error


def chain_of(config_bytes: bytes) -> list[LegacyLayer]:
    """The chain of an image, base first. Raises Invalid for what is no image config."""
    config = decode(config_bytes)
    try:
        diff_ids = [str(d) for d in (config.get("rootfs") or {}).get("diff_ids") or ()]
        lines = _lines(config.get("history") or (), diff_ids)
    except (AttributeError, TypeError) as error:
        raise Invalid(f"image config: {error}") from error
    chain: list[LegacyLayer] = []
    for number, (line, diff_id) in enumerate(lines):
        parent = chain[-1].id if chain else ""
        document = _document(line, config)
        if number == len(lines) - 1:
            document = _last(document, config, config_bytes)
        if not diff_id:
            document["throwaway"] = True
        chain.append(_linked(document, parent, diff_id))
    return chain


def _lines(history: Sequence[Document], diff_ids: Sequence[str]) -> list[tuple[Document, str]]:
    """Lines of history with their layers; a history that does not fit the layers is left out."""
    filled = sum(1 for line in history if not line.get("empty_layer"))
    if filled != len(diff_ids):
        return [({}, diff_id) for diff_id in diff_ids] or [({}, "")]
    rest = iter(diff_ids)
    return [(line, "" if line.get("empty_layer") else next(rest)) for line in history] or [({}, "")]


def _document(line: Document, config: Document) -> dict[str, Any]:
    found = {
        "created": line.get("created") or config.get("created"),
        "author": line.get("author"),
        "comment": line.get("comment"),
        "architecture": config.get("architecture"),
        "os": config.get("os"),
    }
    made_by = line.get("created_by")
    document: dict[str, Any] = {name: value for name, value in found.items() if value}
    document["container_config"] = {"Cmd": [made_by] if made_by else []}
    return document


def _last(document: dict[str, Any], config: Document, config_bytes: bytes) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in ("rootfs", "history") and v is not None}
    return {**document, **kept, VERBATIM: config_bytes.decode()}


def _linked(document: dict[str, Any], parent: str, diff_id: str) -> LegacyLayer:
    seed = b"\0".join((b"lading layer", parent.encode(), diff_id.encode(), encode(document)))
    layer_id = hashlib.sha256(seed).hexdigest()
    document = {**document, "id": layer_id, **({"parent": parent} if parent else {})}
    return LegacyLayer(layer_id, encode(document), diff_id)


def has_content(document: Document) -> bool:
    """Whether the document's layer is one of the image."""
    return not document.get("throwaway")


def config_of(documents: Sequence[Document], diff_ids: Sequence[str] = ()) -> bytes:
    """The config of the image whose chain this is, base first.

    ``diff_ids`` are those of the documents with content; without them the config lacks them, unless
    the chain was made from a config. Raises Invalid.
    """
    verbatim = documents[-1].get(VERBATIM)
    if isinstance(verbatim, str):
        config = decode(verbatim.encode())
        known = (config.get("rootfs") or {}).get("diff_ids") or []
        if not diff_ids or known == list(diff_ids):
            return verbatim.encode()
    return encode(_converted(documents, diff_ids))


def _converted(documents: Sequence[Document], diff_ids: Sequence[str]) -> dict[str, Any]:
    config = {k: v for k, v in documents[-1].items() if k not in _LAYER_MEMBERS}
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = [_history(document) for document in documents]
    config.setdefault("architecture", "amd64")
    config.setdefault("os", "linux")
    return config


def _history(document: Document) -> dict[str, Any]:
    made_by = (document.get("container_config") or {}).get("Cmd") or ()
    extra = {
        "created_by": " ".join(str(word) for word in made_by),
        "author": document.get("author"),
        "comment": document.get("comment"),
        "empty_layer": not has_content(document),
    }
    return {
        "created": document.get("created"),
        **{name: value for name, value in extra.items() if value},
    }
