"""``--storage-opt``: the backend, limits and place of one container's writable layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lading.backends import Backends
from lading.containers.parts import Parts
from lading.errors import Invalid, Unsupported
from lading.hooks.filesystem import Filesystem

#: Names the filesystem backend.
DRIVER = "driver"

#: Label of the contract: the directory that a snapshot without parent lies on.
BASE = "lading.base"

#: Label: the capability that holds it.
_NEEDS = {
    "lading.size": "quota-size",
    "lading.inodes": "quota-inodes",
    "lading.path": "upper-path",
}


def labels(options: Mapping[str, str]) -> dict[str, str]:
    """``--storage-opt`` as the labels that filesystem backends know. Raises Invalid."""
    found = {}
    for key, value in options.items():
        if key == DRIVER:
            continue
        if key in ("size", "inodes"):
            found[f"lading.{key}"] = str(parse_size(value))
        elif key == "path":
            found["lading.path"] = value
        else:
            raise Invalid(
                f"unknown storage option: {key}", hint="known: driver, inodes, path, size"
            )
    return found


_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """``10G``, ``512MiB``, ``100``. Raises Invalid."""
    lowered = text.strip().lower()
    number = lowered.rstrip("bikmgt")
    unit = lowered[len(number) :].removesuffix("b").removesuffix("i")
    try:
        found = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise Invalid(f"invalid size: '{text}'") from None
    if found <= 0:
        raise Invalid(f"invalid size: '{text}': it must be above 0")
    return found


def settled(options: Mapping[str, str], parts: Parts) -> dict[str, str]:
    """The options with the place by its real path. Raises Invalid for one that cannot be."""
    found = dict(options)
    if (place := found.get("path")) is None:
        return found
    if not place.startswith("/"):
        raise Invalid(f'storage option path="{place}": an absolute path is needed')
    real = os.path.realpath(place)
    if not os.path.isdir(real):
        raise Invalid(f'storage option path="{place}": no such directory')
    for own in (parts.data_root, parts.exec_root):
        if Path(real).is_relative_to(os.path.realpath(own)):
            raise Invalid(f'storage option path="{place}": that directory is the engine\'s own')
    return {**found, "path": real}


def check(backends: Backends[Filesystem], name: str, wanted: Mapping[str, str]) -> None:
    """Raise Unsupported for what a backend cannot hold, before an image is unpacked there."""
    for label in wanted:
        option, capability = label.removeprefix("lading."), _NEEDS[label]
        if capability not in backends.get(name).capabilities:
            able = ", ".join(b.name for b in backends.usable() if capability in b.capabilities)
            raise Unsupported(
                f'storage option {option}: filesystem backend "{name}" cannot do that',
                hint=f"these can: {able or 'none that works here'}",
            )
