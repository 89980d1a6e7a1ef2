"""``--network`` in its short and long form, and the endpoint flags that go with it."""

from __future__ import annotations

import csv
from typing import Any

from lading.cli.errors import Failure
from lading.cli.flags import Call

BUILT_IN = ("default", "bridge", "host", "none")


def mode_and_endpoints(call: Call) -> tuple[str, dict[str, Any]]:
    """``HostConfig.NetworkMode`` and ``NetworkingConfig.EndpointsConfig``; raises Failure."""
    wanted = [_attachment(value) for value in call.texts("network")]
    if not wanted:
        wanted = [("default", {})]
    mode, first = wanted[0]
    if any(_is_special(name) for name, _ in wanted) and len(wanted) > 1:
        raise Failure(
            "conflicting options: cannot attach both user-defined and non-user-defined"
            " network-modes",
            code=125,
        )
    _add_flags(call, mode, first)
    endpoints: dict[str, Any] = {}
    for name, settings in wanted:
        if name in endpoints:
            raise Failure(f'network "{name}" is specified multiple times', code=125)
        if settings or (len(wanted) > 1 or not _is_special(name)):
            endpoints[name] = settings
    return mode, endpoints


def _is_special(name: str) -> bool:
    return name in BUILT_IN or name.startswith(("container:", "ns:"))


def _attachment(value: str) -> tuple[str, dict[str, Any]]:
    """``name=net,alias=web,ip=10.0.0.5`` or just a name."""
    if "=" not in value or value.startswith(("container:", "ns:")):
        return value, {}
    name, settings = "", dict[str, Any]()
    for field in next(csv.reader([value])):
        key, equals, text = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise Failure(f"invalid key/value pair format in network options: {field}", code=125)
        if key == "name":
            name = text.strip()
        elif key == "alias":
            settings.setdefault("Aliases", []).append(text)
        elif key == "ip":
            settings.setdefault("IPAMConfig", {})["IPv4Address"] = text
        elif key == "ip6":
            settings.setdefault("IPAMConfig", {})["IPv6Address"] = text
        elif key == "mac-address":
            settings["MacAddress"] = text
        elif key == "link-local-ip":
            settings.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(text)
        elif key == "driver-opt":
            option, _, setting = text.partition("=")
            settings.setdefault("DriverOpts", {})[option.strip()] = setting
        elif key == "gw-priority":
            settings["GwPriority"] = _integer(text)
        else:
            raise Failure(f"invalid field key {key}", code=125)
    if not name:
        raise Failure(f"network name is missing: {value}", code=125)
    return name, settings


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise Failure(f"invalid gw-priority: {text}", code=125) from error


def _add_flags(call: Call, mode: str, settings: dict[str, Any]) -> None:
    """``--ip`` and its like belong to the first network."""
    if call.text("ip"):
        settings.setdefault("IPAMConfig", {})["IPv4Address"] = call.text("ip")
    if call.text("ip6"):
        settings.setdefault("IPAMConfig", {})["IPv6Address"] = call.text("ip6")
    if call.texts("link-local-ip"):
        settings.setdefault("IPAMConfig", {})["LinkLocalIPs"] = call.texts("link-local-ip")
    if call.texts("network-alias"):
        settings["Aliases"] = [*settings.get("Aliases", []), *call.texts("network-alias")]
    if call.text("mac-address"):
        settings["MacAddress"] = call.text("mac-address")
    if call.texts("link") and not _is_special(mode):
        settings["Links"] = call.texts("link")
