"""Which networks a container joins, from what was asked for at ``create``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from ipaddress import IPv4Address

import msgspec

from lading.errors import Invalid
from lading.model.docker import EndpointSettings, NetworkingConfig
from lading.networks.records import Network, Subject

BRIDGE, HOST_NETWORK, NONE_NETWORK = "bridge", "host", "none"
CONTAINER, NAMESPACE = "container:", "ns:"
PREDEFINED = (BRIDGE, HOST_NETWORK, NONE_NETWORK)

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def network_of_mode(mode: str) -> str:
    """The network that a mode names; "" for modes that share a namespace."""
    if mode.startswith((CONTAINER, NAMESPACE)):
        return ""
    return BRIDGE if mode in ("", "default") else mode


def wanted(mode: str, networking: NetworkingConfig, mac: str = "") -> dict[str, EndpointSettings]:
    """Networks as the user named them, the mode's own first, with settings.

    ``mac`` is the container-wide hardware address, which is that of the first. Raises Invalid.
    """
    primary = network_of_mode(mode)
    if not primary:
        return {}
    asked = {network_of_mode(ref): found for ref, found in networking.endpoints_config.items()}
    if not asked:
        asked = {primary: EndpointSettings()}
    ordered = sorted(asked, key=lambda ref: (ref != primary, ref))
    found = {ref: asked[ref] for ref in ordered}
    first = next(iter(found))
    if mac and not found[first].mac_address:
        found[first] = msgspec.structs.replace(found[first], mac_address=mac)
    return {ref: _checked(settings) for ref, settings in found.items()}


def of(container: Subject) -> dict[str, EndpointSettings]:
    """The networks of a container that was never connected to others since it was made."""
    return wanted(
        container.host_config.network_mode, container.networking, container.config.mac_address
    )


def _checked(settings: EndpointSettings) -> EndpointSettings:
    if settings.mac_address:
        return msgspec.structs.replace(settings, mac_address=normal_mac(settings.mac_address))
    return settings


def links(settings: EndpointSettings) -> dict[str, str]:
    """The names that a container knows others by on one network, and what they are called."""
    found = {}
    for row in settings.links:
        name, _, alias = row.partition(":")
        found[alias or name] = name
    return found


def normal_mac(text: str) -> str:
    """A hardware address as ``02:42:..`` in lower case. Raises Invalid."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise Invalid(f"invalid MAC address: {text}")
    if int(mac[:2], 16) & 1:
        raise Invalid(f"invalid MAC address: {text} is a multicast address")
    return mac


def mac_for(ip: str) -> str:
    """A hardware address: from the IPv4 address, so that neighbours' caches stay true."""
    last = IPv4Address(ip).packed if ip else secrets.token_bytes(4)
    return bytes((0x02, 0x42, *last)).hex(":")


def check_settings(network: Network, settings: EndpointSettings) -> None:
    """Raises Invalid for what a network cannot give."""
    ipam = settings.ipam_config
    if network.default or not network.has_backend:
        if ipam is not None and (ipam.ipv4_address or ipam.ipv6_address):
            raise Invalid("user specified IP address is supported on user defined networks only")
        if settings.aliases:
            raise Invalid("network-scoped aliases are only supported for user-defined networks")


def priority(settings: Mapping[str, EndpointSettings], networks: Mapping[str, Network]) -> str:
    """The id of the network that the default route goes through; "" for none."""
    usable = [key for key in settings if not networks[key].internal and networks[key].has_backend]
    # max() keeps the first of equals, which is the mode's own network.
    return max(usable, key=lambda key: settings[key].gw_priority, default="")
