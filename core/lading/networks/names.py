"""Who is called what on which network: what the name server answers from."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from lading.networks.records import EndpointState
from lading.networks.state import Live


@dataclass(frozen=True, slots=True)
class Client:
    """The container that asks: the networks it is on, its links and the servers it forwards to.

    ``isolated``: it has no way out, so what it asks must not get out either.
    """

    container: str
    networks: Sequence[str]
    links: dict[str, str]
    servers: Sequence[str]
    isolated: bool


class Names:
    """The names of all running containers. Names are compared without case (RFC 4343)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[tuple[str, str], list[EndpointState]] = {}
        self._by_address: dict[str, tuple[str, str]] = {}
        self._clients: dict[str, Client] = {}
        self._lives: dict[str, Live] = {}

    def set(self, live: Live) -> None:
        """Know a container, in place of what was known of it."""
        with self._lock:
            self._remove(live.container)
            self._lives[live.container] = live
            named = [e for e in live.endpoints if e.ip or e.ip6]
            networks = [e.network_id for e in named if e.dns_names]
            links = {alias.lower(): target for alias, target in live.links.items()}
            isolated = not any(e.default_route for e in named)
            client = Client(live.container, networks, links, live.servers, isolated)
            for endpoint in named:
                for key in _keys(live, endpoint):
                    self._by_name.setdefault(key, []).append(endpoint)
                for address in filter(None, (endpoint.ip, endpoint.ip6)):
                    self._clients[address] = client
                    if endpoint.dns_names:
                        shown = f"{live.name}.{endpoint.network_name}"
                        self._by_address[address] = (endpoint.network_id, shown)

    def remove(self, container: str) -> None:
        """Forget a container; silent when unknown."""
        with self._lock:
            self._remove(container)

    def _remove(self, container: str) -> None:
        live = self._lives.pop(container, None)
        if live is None:
            return
        for endpoint in live.endpoints:
            for key in _keys(live, endpoint):
                rest = [e for e in self._by_name.get(key, ()) if e.id != endpoint.id]
                if rest:
                    self._by_name[key] = rest
                else:
                    self._by_name.pop(key, None)
            for address in filter(None, (endpoint.ip, endpoint.ip6)):
                self._clients.pop(address, None)
                self._by_address.pop(address, None)

    def client(self, address: str) -> Client | None:
        """The container that has an address."""
        with self._lock:
            return self._clients.get(address)

    def resolve(self, client: Client, name: str) -> list[str] | None:
        """All addresses of a name as a client sees it; None when nobody has it."""
        name = name.rstrip(".").lower()
        target = client.links.get(name, name).lower()
        with self._lock:
            found: list[EndpointState] = []
            for network in client.networks:
                found += self._by_name.get((network, target), ())
                # "web.net" is "web" on the network "net".
                bare, dot, suffix = target.rpartition(".")
                if dot:
                    named = self._by_name.get((network, bare), ())
                    found += [e for e in named if e.network_name.lower() == suffix]
        if not found:
            return None
        return [a for e in found for a in (e.ip, e.ip6) if a]

    def reverse(self, client: Client, address: str) -> str | None:
        """The name of an address on one of the client's networks."""
        with self._lock:
            network, name = self._by_address.get(address, ("", ""))
        return name if network in client.networks else None


def _keys(live: Live, endpoint: EndpointState) -> set[tuple[str, str]]:
    """What an endpoint is found by; the full id is what links may name."""
    if not endpoint.dns_names:
        return set()
    return {(endpoint.network_id, name.lower()) for name in (*endpoint.dns_names, live.container)}


def address_of_pointer(name: str) -> str | None:
    """The address that a name under ``in-addr.arpa`` or ``ip6.arpa`` asks about."""
    name = name.rstrip(".").lower()
    try:
        if name.endswith(".in-addr.arpa"):
            parts = name.removesuffix(".in-addr.arpa").split(".")
            return str(ipaddress.IPv4Address(".".join(reversed(parts))))
        if name.endswith(".ip6.arpa"):
            digits = name.removesuffix(".ip6.arpa").split(".")
            joined = "".join(reversed(digits))
            grouped = ":".join(joined[n : n + 4] for n in range(0, 32, 4))
            return str(ipaddress.IPv6Address(grouped))
    except ValueError:
        return None
    return None
