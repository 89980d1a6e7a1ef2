"""Endpoints: addresses from IPAM, interfaces and published ports from backends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from lading.errors import Unsupported
from lading.hooks.network import Port
from lading.model.docker import EndpointIPAMConfig, EndpointSettings
from lading.networks import membership
from lading.networks.ipam import Addresses, Exhausted, Taken
from lading.networks.ports import ANY4, ANY6
from lading.networks.records import EndpointState, Network, PublishedPort
from lading.networks.table import Table

#: Docker's option for the beginning of interface names inside.
IFACE_PREFIX = "com.docker.network.container_iface_prefix"


class Endpoints:
    """Makes endpoints and takes them back. ``drain`` waits for addresses that are on their way."""

    def __init__(self, table: Table, addresses: Addresses, drain: Callable[[], object]) -> None:
        self._table = table
        self._addresses = addresses
        self._drain = drain

    def prepare(
        self,
        network: Network,
        settings: EndpointSettings,
        number: int,
        *,
        dns_names: tuple[str, ...] = (),
        default_route: bool,
    ) -> EndpointState:
        """An endpoint with addresses of its own; ``number`` counts the container's interfaces.

        Raises Taken and Exhausted (IPAM), Invalid for an address of no subnet.
        """
        wanted = settings.ipam_config or EndpointIPAMConfig()
        ip, prefix = self._take(network, 4, wanted.ipv4_address)
        try:
            ip6, prefix6 = self._take(network, 6, wanted.ipv6_address)
        except BaseException:
            self._addresses.give(network.id, ip)
            raise
        return EndpointState(
            network_id=network.id,
            network_name=network.name,
            settings=settings,
            id=secrets.token_hex(32),
            ifname=f"{network.options.get(IFACE_PREFIX) or 'eth'}{number}",
            mac=settings.mac_address or membership.mac_for(ip),
            ip=ip,
            prefix=prefix,
            gateway=network.gateway(4) if ip else "",
            ip6=ip6,
            prefix6=prefix6,
            gateway6=network.gateway(6) if ip6 else "",
            dns_names=dns_names,
            default_route=default_route,
        )

    def _take(self, network: Network, version: int, wanted: str) -> tuple[str, int]:
        try:
            return self._addresses.take(network.id, version, wanted)
        except (Exhausted, Taken):
            # What has just ended may still be on its way back.
            self._drain()
            return self._addresses.take(network.id, version, wanted)

    def give_back(self, endpoint: EndpointState) -> None:
        """Free the addresses."""
        self._addresses.give(endpoint.network_id, endpoint.ip, endpoint.ip6)

    def attach(self, endpoint: EndpointState, netns: str) -> None:
        """Connect it. Raises what the backend raises."""
        network = self._table.find(endpoint.network_id)
        self._table.hook(network).attach(
            network=network.for_backend(), endpoint=endpoint.for_backend(), netns=netns
        )

    def detach(self, endpoint: EndpointState, netns: str = "") -> None:
        """Disconnect it; without ``netns`` its namespace has ended."""
        network = self._table.get(endpoint.network_id)
        if network is not None and network.has_backend and endpoint.id:
            self._table.hook(network).detach(
                network=network.for_backend(), endpoint=endpoint.for_backend(), netns=netns
            )

    def publish(self, endpoint: EndpointState, ports: Sequence[PublishedPort]) -> None:
        """Let ports in. Raises Conflict, Unsupported (a backend without ``publish``)."""
        network = self._table.find(endpoint.network_id)
        if not self._table.capable(network, "publish"):
            raise Unsupported(
                f'publish ports on network "{network.name}": its driver "{network.driver}" '
                "does not publish ports"
            )
        self._table.hook(network).publish(
            network=network.for_backend(), endpoint=endpoint.for_backend(), ports=for_backend(ports)
        )

    def unpublish(self, endpoint: EndpointState) -> None:
        """Let nothing in any more."""
        network = self._table.get(endpoint.network_id)
        if network is not None:
            self._table.hook(network).unpublish(
                network=network.for_backend(), endpoint=endpoint.for_backend()
            )


def for_backend(ports: Sequence[PublishedPort]) -> list[Port]:
    """The values that hooks take: one per host port, "" for every address."""
    every = {(p.protocol, p.host_port) for p in ports if p.host_ip == ANY4}
    found = []
    for p in ports:
        if p.host_ip == ANY6 and (p.protocol, p.host_port) in every:
            continue  # shown as a row of its own, published with the other
        host_ip = "" if p.host_ip == ANY4 and _both(p, ports) else p.host_ip
        found.append(Port(p.protocol, p.container_port, p.host_port, host_ip))
    return found


def _both(port: PublishedPort, ports: Sequence[PublishedPort]) -> bool:
    return any(
        p.host_ip == ANY6 and (p.protocol, p.host_port) == (port.protocol, port.host_port)
        for p in ports
    )
