"""The labels of the contract that limit a snapshot."""

from __future__ import annotations

from collections.abc import Mapping

from lading.errors import Invalid, Unsupported

SIZE, INODES = "lading.size", "lading.inodes"
PATH, BASE = "lading.path", "lading.base"


def refuse_labels(backend: str, labels: Mapping[str, str], *known: str) -> None:
    """Raise Unsupported for a ``lading.`` label that is not among those a backend knows."""
    for name in labels:
        if name.startswith("lading.") and name not in known:
            raise Unsupported(
                f'the {backend} backend does not know the label "{name}"',
                hint="use a backend that declares the capability",
            )


def limit(labels: Mapping[str, str], name: str) -> int:
    """The number that a label gives, 0 without it. Raises Invalid."""
    text = labels.get(name, "0")
    if not text.isdecimal():
        raise Invalid(f'bad limit {name}="{text}"', hint="a decimal number is expected")
    return int(text)
