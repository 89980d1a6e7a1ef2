"""The options of a bridge network (``-o KEY=VALUE``), with the names that Docker gave them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lading.errors import Invalid, Unsupported
from lading.hooks.network import Network

NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
DEFAULT = "com.docker.network.bridge.default_bridge"
MTU = "com.docker.network.driver.mtu"
IFACE_PREFIX = "com.docker.network.container_iface_prefix"

KNOWN = (NAME, ICC, MASQUERADE, HOST_BINDING, DEFAULT, MTU, IFACE_PREFIX)
DEFAULT_MTU = 1500

_IFNAME = re.compile(r"[^\s/:]{1,15}")
_WORDS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


@dataclass(frozen=True, slots=True)
class Options:
    """What a network's options say. ``chosen``: the user named the bridge."""

    bridge: str
    chosen: bool
    mtu: int
    icc: bool
    masquerade: bool
    host_ip: str


def read(network: Network) -> Options:
    """Read a network's options. Raises Unsupported for unknown keys, Invalid for wrong values."""
    options = network.options
    for key in options:
        if key not in KNOWN:
            raise Unsupported(
                f'network "{network.name}": unknown option "{key}"',
                hint=f"known: {', '.join(KNOWN)}",
            )
    return Options(
        _name(options.get(NAME, ""), network.id),
        bool(options.get(NAME)),
        _mtu(options.get(MTU, "")),
        _flag(options, ICC),
        _flag(options, MASQUERADE),
        options.get(HOST_BINDING, ""),
    )


def veth_name(endpoint_id: str) -> str:
    """The host's end of an endpoint's pair, found from the id alone."""
    return f"ve{hashlib.blake2b(endpoint_id.encode(), digest_size=6).hexdigest()}"


def _name(wanted: str, network_id: str) -> str:
    name = wanted or f"br-{network_id[:12]}"
    if not _IFNAME.fullmatch(name) or name in (".", ".."):
        raise Invalid(
            f'bridge name "{name}" is not one of an interface: 1 to 15 characters, '
            "none of them a space, a slash or a colon"
        )
    return name


def _mtu(value: str) -> int:
    if not value or value == "0":
        return DEFAULT_MTU
    if not value.isascii() or not value.isdecimal() or not 68 <= int(value) <= 65535:
        raise Invalid(f'{MTU} "{value}" is not a number from 68 to 65535')
    return int(value)


def _flag(options: Mapping[str, str], key: str) -> bool:
    value = options.get(key, "") or "true"
    if value.lower() not in _WORDS:
        raise Invalid(f'{key} "{value}" is neither true nor false')
    return _WORDS[value.lower()]
