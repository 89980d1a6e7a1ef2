"""Images of 2014: one JSON document per layer, with a random id and a parent's.

Sources: image/image.go of Docker 1.0, and how Docker 1.10 converted what it found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Members that said what an image of one layer was, and mean nothing for a config.
_LAYER_MEMBERS = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")


def legacy_config(
    documents: Sequence[Mapping[str, Any]], diff_ids: Sequence[str]
) -> dict[str, Any]:
    """The config of the image whose layers have these documents, base first."""
    config = {k: v for k, v in documents[-1].items() if k not in _LAYER_MEMBERS}
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = [_history(document) for document in documents]
    config.setdefault("architecture", "amd64")
    config.setdefault("os", "linux")
    return config


def _history(document: Mapping[str, Any]) -> dict[str, Any]:
    made_by = (document.get("container_config") or {}).get("Cmd") or ()
    extra = {
        "created_by": " ".join(made_by),
        "author": document.get("author"),
        "comment": document.get("comment"),
    }
    return {
        "created": document.get("created"),
        **{name: value for name, value in extra.items() if value},
    }
