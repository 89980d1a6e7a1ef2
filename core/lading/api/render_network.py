"""Networks, and a container's part in them, in Docker's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lading.api.version import Version
from lading.model.docker_networks import IPAMConfig
from lading.networks import ContainerNetworks, EndpointState, Member, Network


def ports(networks: ContainerNetworks) -> list[dict[str, Any]]:
    """The member ``Ports`` of a row of ``ps``."""
    shown = []
    for port in networks.ports:
        row: dict[str, Any] = {"PrivatePort": port.container_port, "Type": port.protocol}
        if port.host_port:
            row |= {"IP": port.host_ip, "PublicPort": port.host_port}
        shown.append(row)
    return shown


def network_settings(container_id: str, networks: ContainerNetworks, version: Version) -> Any:
    """The member ``NetworkSettings`` of ``inspect``."""
    default = networks.default or EndpointState("", "")
    published: dict[str, list[dict[str, str]] | None] = {}
    for port in networks.ports:
        name = f"{port.container_port}/{port.protocol}"
        if port.host_port:
            binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
            published[name] = [*(published.get(name) or []), binding]
        else:
            published.setdefault(name, None)
    return {
        "Bridge": "",
        "SandboxID": networks.sandbox_id,
        "SandboxKey": networks.sandbox_key,
        "Ports": published,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": default.id,
        "Gateway": default.gateway,
        "GlobalIPv6Address": default.ip6,
        "GlobalIPv6PrefixLen": default.prefix6,
        "IPAddress": default.ip,
        "IPPrefixLen": default.prefix,
        "IPv6Gateway": default.gateway6,
        "MacAddress": default.mac,
        "Networks": endpoints_json(container_id, networks, version),
    }


def endpoints_json(
    container_id: str, networks: ContainerNetworks, version: Version
) -> dict[str, Any]:
    """The networks of a container by name."""
    return {e.network_name: _endpoint_json(container_id, e, version) for e in networks.endpoints}


def _endpoint_json(container_id: str, endpoint: EndpointState, version: Version) -> dict[str, Any]:
    settings = endpoint.settings
    aliases = list(settings.aliases)
    if version < (1, 44) and endpoint.network_name != "bridge":
        aliases.append(container_id[:12])
    shown: dict[str, Any] = {
        "IPAMConfig": None if settings.ipam_config is None else _wanted(endpoint),
        "Links": list(settings.links),
        "Aliases": aliases,
        "MacAddress": endpoint.mac,
        "DriverOpts": settings.driver_opts or None,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.ip,
        "IPPrefixLen": endpoint.prefix,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.ip6,
        "GlobalIPv6PrefixLen": endpoint.prefix6,
    }
    if version >= (1, 44):
        shown["DNSNames"] = list(endpoint.dns_names)
    if version >= (1, 48):
        shown["GwPriority"] = settings.gw_priority
    return shown


def _wanted(endpoint: EndpointState) -> dict[str, Any]:
    wanted: dict[str, Any] = msgspec.to_builtins(endpoint.settings.ipam_config)
    return {name: value for name, value in wanted.items() if value}


def network_json(network: Network, members: Sequence[Member], version: Version) -> dict[str, Any]:
    """``GET /networks/X`` and a row of the list."""
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": dict(network.ipam_options),
            "Config": [_range_json(r) for r in network.ranges],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {m.container: _member_json(m) for m in members},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }
    if version < (1, 47):
        del shown["EnableIPv4"]
    return shown


def _range_json(addresses: IPAMConfig) -> dict[str, Any]:
    shown: dict[str, Any] = {"Subnet": addresses.subnet}
    if addresses.ip_range:
        shown["IPRange"] = addresses.ip_range
    if addresses.gateway:
        shown["Gateway"] = addresses.gateway
    if addresses.auxiliary_addresses:
        shown["AuxiliaryAddresses"] = dict(addresses.auxiliary_addresses)
    return shown


def _member_json(member: Member) -> dict[str, str]:
    return {
        "Name": member.name,
        "EndpointID": member.endpoint,
        "MacAddress": member.mac,
        "IPv4Address": member.ipv4,
        "IPv6Address": member.ipv6,
    }
