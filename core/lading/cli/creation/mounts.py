"""``--volume``, ``--mount`` and ``--tmpfs``."""

from __future__ import annotations

import csv
import os
from typing import Any

from lading.cli.errors import Failure
from lading.cli.flags import FALSE, TRUE
from lading.cli.output.units import size_in_bytes

TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster", "image")


def volumes(values: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """``-v`` values as binds (with a source) and anonymous volumes; raises Failure."""
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for value in values:
        source, colon, rest = value.partition(":")
        if not value or (source == "" and colon):
            raise Failure(f"invalid spec: {value}: empty section between colons", code=125)
        if not colon:
            anonymous[value] = {}
        else:
            # A path relative to here; a bare name is a volume.
            if source in (".", "..") or source.startswith(("./", "../")):
                source = os.path.abspath(source)
            elif source.startswith("~/"):
                source = os.path.expanduser(source)
            binds.append(f"{source}:{rest}")
    return binds, anonymous


def tmpfs(values: list[str]) -> dict[str, str]:
    """``--tmpfs /run:size=1m`` as paths and options."""
    return {path: options for path, _, options in (value.partition(":") for value in values)}


def mount(value: str) -> dict[str, Any]:
    """One ``--mount`` as the API's mount; raises Failure."""
    spec: dict[str, Any] = {"Type": "volume"}
    fields = next(csv.reader([value]), [])
    if not value:
        raise Failure("value is empty", code=125)
    for field in fields:
        key, equals, text = field.partition("=")
        key = key.strip().lower()
        if not equals:
            if key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive"):
                raise Failure(f"invalid field '{field}' must be a key=value pair", code=125)
            text = "true"
        _set(spec, key, text, field)
    return _checked(spec, value)


def _set(spec: dict[str, Any], key: str, text: str, field: str) -> None:
    if key == "type":
        spec["Type"] = text.lower()
    elif key in ("source", "src"):
        relative = text in (".", "..") or text.startswith(("./", "../"))
        spec["Source"] = os.path.abspath(text) if relative else text
    elif key in ("target", "dst", "destination"):
        spec["Target"] = text
    elif key in ("readonly", "ro"):
        spec["ReadOnly"] = _boolean(key, text)
    elif key == "consistency":
        spec["Consistency"] = text.lower()
    elif key == "bind-propagation":
        spec.setdefault("BindOptions", {})["Propagation"] = text.lower()
    elif key == "bind-nonrecursive":
        spec.setdefault("BindOptions", {})["NonRecursive"] = _boolean(key, text)
    elif key == "bind-recursive":
        _set_recursive(spec.setdefault("BindOptions", {}), text)
    elif key == "bind-create-src":
        spec.setdefault("BindOptions", {})["CreateMountpoint"] = _boolean(key, text)
    elif key == "volume-nocopy":
        spec.setdefault("VolumeOptions", {})["NoCopy"] = _boolean(key, text)
    elif key == "volume-subpath":
        spec.setdefault("VolumeOptions", {})["Subpath"] = text
    elif key == "volume-label":
        name, _, label = text.partition("=")
        spec.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = label
    elif key == "volume-driver":
        _driver(spec)["Name"] = text
    elif key == "volume-opt":
        name, _, option = text.partition("=")
        _driver(spec).setdefault("Options", {})[name] = option
    elif key == "image-subpath":
        spec.setdefault("ImageOptions", {})["Subpath"] = text
    elif key == "tmpfs-size":
        spec.setdefault("TmpfsOptions", {})["SizeBytes"] = _number(key, text, size_in_bytes)
    elif key == "tmpfs-mode":
        spec.setdefault("TmpfsOptions", {})["Mode"] = _number(key, text, lambda t: int(t, 8))
    else:
        raise Failure(f"unexpected key '{key}' in '{field}'", code=125)


def _set_recursive(options: dict[str, Any], text: str) -> None:
    if text == "disabled":
        options["NonRecursive"] = True
    elif text == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif text == "readonly":
        options["ReadOnlyForceRecursive"] = True
    elif text != "enabled":
        raise Failure(f"invalid value for bind-recursive: {text}", code=125)


def _driver(spec: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = spec.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
    return config


def _boolean(key: str, text: str) -> bool:
    if text not in TRUE | FALSE:
        raise Failure(f"invalid value for {key}: {text}", code=125)
    return text in TRUE


def _number(key: str, text: str, read: Any) -> int:
    try:
        return int(read(text))
    except ValueError as error:
        raise Failure(f"invalid value for {key}: {text}", code=125) from error


def _checked(spec: dict[str, Any], value: str) -> dict[str, Any]:
    kind = spec["Type"]
    if kind not in TYPES:
        message = f"invalid mount type '{kind}': valid ones are {', '.join(TYPES)}"
        raise Failure(message, code=125)
    if not spec.get("Target"):
        raise Failure("target is required", code=125)
    for options, owner in (
        ("BindOptions", "bind"),
        ("VolumeOptions", "volume"),
        ("TmpfsOptions", "tmpfs"),
        ("ImageOptions", "image"),
    ):
        if options in spec and kind != owner:
            raise Failure(
                f"cannot mix '{owner}-*' options with mount type '{kind}': {value}", code=125
            )
    return spec
