"""Ranges for networks that name none: from the default pools, away from what the host uses."""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec

from lading.config import AddressPool
from lading.errors import Conflict, Invalid
from lading.model.docker_networks import IPAMConfig

IPNetwork = IPv4Network | IPv6Network

#: Docker's local default pools.
DEFAULT_POOLS = (
    *(AddressPool(f"172.{n}.0.0/16", 16) for n in range(17, 32)),
    AddressPool("192.168.0.0/16", 20),
)

ROUTES = Path("/proc/net/route")


def parse(text: str, what: str = "subnet") -> IPNetwork:
    """Read a CIDR whose host bits are zero. Raises Invalid."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise Invalid(f'invalid {what} "{text}": {error}') from error


def host_ranges(
    routes: Path = ROUTES, resolv_conf: Path = Path("/etc/resolv.conf")
) -> list[IPNetwork]:
    """What the host routes somewhere, and its name servers: ranges to stay away from."""
    found: list[IPNetwork] = []
    for line in _lines(routes)[1:]:
        fields = line.split()
        if len(fields) >= 8:
            destination, mask = (int(fields[n], 16) for n in (1, 7))
            if mask:
                # The file has both as integers of the machine's byte order.
                address = ipaddress.IPv4Address(struct.pack("=I", destination))
                netmask = ipaddress.IPv4Address(struct.pack("=I", mask))
                found.append(IPv4Network(f"{address}/{netmask}", strict=False))
    for line in _lines(resolv_conf):
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(ipaddress.ip_network(words[1].partition("%")[0]))
            except ValueError:
                continue
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def choose(pools: Sequence[AddressPool], taken: Iterable[IPNetwork]) -> IPv4Network:
    """The first IPv4 range of the pools that overlaps with nothing. Raises Conflict."""
    used = [t for t in taken if isinstance(t, IPv4Network)]
    for block in _blocks(pools or DEFAULT_POOLS):
        if not any(block.overlaps(t) for t in used):
            return block
    raise Conflict(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to "
        "assign to the network",
        hint="remove networks that are not used, or name a --subnet",
    )


def _blocks(pools: Sequence[AddressPool]) -> Iterator[IPv4Network]:
    for pool in pools:
        base = parse(pool.base, "address pool")
        if isinstance(base, IPv4Network):
            if not base.prefixlen <= pool.size <= 30:
                raise Invalid(f'address pool "{pool.base}": size {pool.size} does not fit')
            yield from base.subnets(new_prefix=pool.size)


def local_ipv6(network_id: str) -> IPv6Network:
    """A unique local range (RFC 4193) for a network, from its id."""
    digest = hashlib.blake2b(network_id.encode(), digest_size=7).digest()
    return IPv6Network((b"\xfd" + digest + b"\0" * 8, 64))


def check(config: IPAMConfig) -> IPAMConfig:
    """A range that a user gave, with its gateway filled in. Raises Invalid."""
    subnet = parse(config.subnet)
    if subnet.num_addresses < 2:
        raise Invalid(f'invalid subnet "{config.subnet}": it has no room for a gateway')
    for text in (config.gateway, *config.auxiliary_addresses.values()):
        if text and address(text) not in subnet:
            raise Invalid(f'address "{text}" is not in the subnet {subnet}')
    if config.ip_range:
        inner = parse(config.ip_range, "IP range")
        if inner.network_address not in subnet or inner.broadcast_address not in subnet:
            raise Invalid(f'IP range "{config.ip_range}" is not in the subnet {subnet}')
    return with_gateway(config)


def with_gateway(config: IPAMConfig) -> IPAMConfig:
    """The same with the first address as gateway when none is named."""
    if config.gateway:
        return config
    # As Docker: the first address of the range that containers get theirs from.
    first = ipaddress.ip_network(config.ip_range or config.subnet).network_address
    subnet = ipaddress.ip_network(config.subnet)
    gateway = first + 1 if first == subnet.network_address else first
    return msgspec.structs.replace(config, gateway=str(gateway))


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address. Raises Invalid."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise Invalid(f'invalid IP address "{text}"') from error
