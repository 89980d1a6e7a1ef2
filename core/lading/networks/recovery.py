"""Taking up what an earlier daemon left, and sweeping what nobody knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from lading.backends import START_DEADLINE, reason_of, under_deadline
from lading.hooks.network import Endpoint, Port
from lading.networks.endpoints import for_backend
from lading.networks.ipam import Addresses
from lading.networks.records import Network
from lading.networks.sandboxes import Parts, published_on
from lading.networks.state import Live

log = logging.getLogger(__name__)


def note_addresses(parts: Parts, addresses: Addresses) -> None:
    """Know the ranges of all networks, and the addresses of containers that (may) still run."""
    for network in parts.table:
        note_network(parts, addresses, network)


def note_network(parts: Parts, addresses: Addresses, network: Network) -> None:
    """Likewise of one network."""
    addresses.add(network.id, network.ranges)
    for live in parts.lives.values():
        if (endpoint := live.endpoint(network.id)) is not None:
            addresses.note(network.id, endpoint.ip, endpoint.ip6)


def recover(parts: Parts) -> None:
    """Make namespaces, interfaces and rules agree with the sandboxes that are known."""
    for live in list(parts.lives.values()):
        if _is_gone(parts, live):
            parts.lives.pop(live.container)
            parts.state.delete_sandbox(live.container)
        else:
            parts.ports.adopt(live.ports)
            parts.names.set(live)
    known = {live.namespace for live in parts.lives.values()}
    for name in parts.namespaces.names():
        if name not in known:
            parts.namespaces.remove(name)
    drivers = {network.driver for network in parts.table if network.has_backend}
    for driver in sorted(drivers):
        _recover_backend(parts, [n for n in parts.table if n.driver == driver])


def _is_gone(parts: Parts, live: Live) -> bool:
    """The host has been rebooted, or the sandbox never got its namespace."""
    return live.deferred or (bool(live.namespace) and not parts.namespaces.alive(live.namespace))


def _recover_backend(parts: Parts, networks: Sequence[Network]) -> None:
    endpoints: dict[str, list[Endpoint]] = {network.id: [] for network in networks}
    published: dict[str, Sequence[Port]] = {}
    for live in parts.lives.values():
        for endpoint in live.endpoints:
            if endpoint.id and endpoint.network_id in endpoints:
                endpoints[endpoint.network_id].append(endpoint.for_backend())
        if live.ports and (chosen := published_on(live)):
            published[chosen.id] = for_backend(live.ports)
    given: Mapping[str, Sequence[Endpoint]] = endpoints
    rows = [network.for_backend() for network in networks]
    try:
        hook = parts.table.hook(networks[0])
        under_deadline(
            lambda: hook.recover(networks=rows, endpoints=given, published=published),
            START_DEADLINE,
            "recover",
        )
    except Exception as error:
        # The rest of the engine runs without; containers on these networks will not start.
        log.error('networks of driver "%s": %s', networks[0].driver, reason_of(error))
