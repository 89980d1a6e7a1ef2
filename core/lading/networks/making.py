"""Making networks: what users ask for, and the three that are always there."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence

import msgspec

from lading.choice import DEFAULT_NETWORK_DRIVER
from lading.config import Settings
from lading.errors import Conflict, Denied, Invalid, Unsupported
from lading.model.docker_networks import IPAMConfig, NetworkCreate
from lading.networks import membership, subnets
from lading.networks.ipam import Addresses
from lading.networks.records import HOST, NULL, Network
from lading.networks.sandboxes import Parts
from lading.store.clock import now

#: As Docker has them, but for what would not be told from a path or from "container:NAME".
_NAME = re.compile(r"(?=.*\S)[^/:\x00-\x1f\x7f]+")
_PREFIX = "com.docker.network.bridge."


def check(body: NetworkCreate) -> None:
    """Raises for what no network can be."""
    if not _NAME.fullmatch(body.name):
        raise Invalid(
            f'invalid network name "{body.name}": any but blanks alone, without "/", ":" and '
            "control characters"
        )
    if body.name in (*membership.PREDEFINED, "default"):
        raise Denied(f"operation is not permitted on predefined {body.name} network")
    if body.driver in (HOST, NULL):
        raise Denied(f'only one instance of "{body.driver}" network is allowed')
    unsupported = {
        "ingress networks": body.ingress,
        "configuration-only networks": body.config_only or body.config_from is not None,
        f'scope "{body.scope}"': body.scope not in ("", "local"),
        f'IPAM driver "{body.ipam.driver}"': body.ipam.driver not in ("", "default"),
    }
    for what, asked in unsupported.items():
        if asked:
            raise Unsupported(f'network "{body.name}": {what} are not supported')


def network(body: NetworkCreate, others: Sequence[Network], settings: Settings) -> Network:
    """The network that is asked for, its ranges chosen. Raises Invalid, Conflict."""
    network_id = secrets.token_hex(32)
    ranges = [subnets.check(r) for r in body.ipam.config if r.subnet]
    for bare in (r for r in body.ipam.config if not r.subnet):
        if bare.gateway or bare.ip_range or bare.auxiliary_addresses:
            raise Invalid(f'network "{body.name}": an address range needs its subnet')
    versions = {ipaddress.ip_network(r.subnet).version for r in ranges}
    taken = _taken(others)
    for one in ranges:
        _check_free(one, taken)
    if 4 not in versions and body.enable_ipv4:
        ranges.insert(0, _chosen(settings, taken))
    if 6 not in versions and body.enable_ipv6:
        free = IPAMConfig(subnet=str(subnets.local_ipv6(network_id)))
        ranges.append(subnets.with_gateway(free))
    if not ranges:
        raise Invalid(f'network "{body.name}" has neither IPv4 nor IPv6')
    return Network(
        id=network_id,
        name=body.name,
        created=now(),
        driver=body.driver or DEFAULT_NETWORK_DRIVER,
        ranges=tuple(ranges),
        internal=body.internal,
        attachable=body.attachable,
        enable_ipv4=body.enable_ipv4,
        enable_ipv6=body.enable_ipv6 or 6 in versions,
        ipam_options=body.ipam.options,
        options=body.options,
        labels=body.labels,
    )


def _taken(others: Sequence[Network]) -> list[subnets.IPNetwork]:
    return [ipaddress.ip_network(r.subnet) for n in others for r in n.ranges]


def _check_free(one: IPAMConfig, taken: Sequence[subnets.IPNetwork]) -> None:
    wanted = ipaddress.ip_network(one.subnet)
    if any(t.version == wanted.version and t.overlaps(wanted) for t in taken):
        raise Conflict(
            f"invalid pool request: Pool overlaps with other one on this address space: {wanted}"
        )


def _chosen(settings: Settings, taken: Sequence[subnets.IPNetwork]) -> IPAMConfig:
    away_from = [*taken, *subnets.host_ranges()]
    free = subnets.choose(settings.default_address_pools, away_from)
    return subnets.with_gateway(IPAMConfig(subnet=str(free)))


def make_predefined(parts: Parts, addresses: Addresses, settings: Settings) -> None:
    """See to it that ``host``, ``none`` and (unless config says ``none``) ``bridge`` are there."""
    for name, driver in ((membership.HOST_NETWORK, HOST), (membership.NONE_NETWORK, NULL)):
        if parts.table.named(name) is None:
            made = Network(secrets.token_hex(32), name, now(), driver, predefined=True)
            parts.table.save(made)
    known = parts.table.named(membership.BRIDGE)
    if settings.bridge == "none":
        if known is not None:
            parts.table.delete(known)
            addresses.remove(known.id)
        return
    others = [n for n in parts.table if n is not known]
    wanted = _default(settings, known, others)
    if wanted != known:
        parts.table.save(wanted)
        addresses.add(wanted.id, wanted.ranges)


def _default(settings: Settings, known: Network | None, others: Sequence[Network]) -> Network:
    """The default bridge as config wants it; it keeps its id and, unless told, its range."""
    options = {
        f"{_PREFIX}default_bridge": "true",
        f"{_PREFIX}enable_icc": str(settings.icc).lower(),
        f"{_PREFIX}enable_ip_masquerade": str(settings.ip_masq).lower(),
        f"{_PREFIX}host_binding_ipv4": settings.ip or "0.0.0.0",
        f"{_PREFIX}name": settings.bridge,
        "com.docker.network.driver.mtu": str(settings.mtu or 1500),
    }
    return Network(
        id=known.id if known else secrets.token_hex(32),
        name=membership.BRIDGE,
        created=known.created if known else now(),
        driver=DEFAULT_NETWORK_DRIVER,
        ranges=(_default_range(settings, known, others),),
        options=options,
        predefined=True,
        default=True,
    )


def _default_range(
    settings: Settings, known: Network | None, others: Sequence[Network]
) -> IPAMConfig:
    if not settings.bip:
        if known is not None and known.ranges:
            return msgspec.structs.replace(known.ranges[0], ip_range=settings.fixed_cidr)
        chosen = _chosen(settings, _taken(others))
        return msgspec.structs.replace(chosen, ip_range=settings.fixed_cidr)
    try:
        interface = ipaddress.ip_interface(settings.bip)
    except ValueError as error:
        raise Invalid(f'bip "{settings.bip}" is not an address with its prefix') from error
    return subnets.check(
        IPAMConfig(
            subnet=str(interface.network),
            gateway=str(interface.ip),
            ip_range=settings.fixed_cidr,
        )
    )
