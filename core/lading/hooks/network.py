"""The network role: make networks and connect network namespaces to them.

Life cycle::

    create(network) ──▶ network ──remove──▶ (gone)
    attach(network, endpoint, netns) ──▶ endpoint ──detach──▶ (gone)
    publish(network, endpoint, ports) ──▶ published ──unpublish──▶ endpoint

Glossary

``network``   a :class:`Network`: id, name, driver options and the subnets that the core's
              IPAM chose. A backend must find its way from this value alone.
``endpoint``  an :class:`Endpoint`: one interface of one container on one network, with the
              addresses that the core's IPAM chose.
``netns``     absolute path of a network namespace (bind mount or ``/proc/<pid>/ns/net``).

Addresses, names and DNS are the core's: a backend allocates none. The core makes network
namespaces, brings ``lo`` up, and keeps some of them attached and ready before a container asks,
so ``attach`` may come long before the container's start. All hooks may be called from many
threads. What a backend makes on the host carries its id in the name or in a comment, so that
``recover`` can tell its own from others'.

Errors: Conflict when an address range, interface name or host port is taken, naming it;
Unsupported for an option it does not know, listing those it does; NotFound for unknown ids;
``OSError`` with the operation in the message. A failed call leaves nothing behind. ``remove``,
``detach`` and ``unpublish`` succeed silently for what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from lading.hooks.common import Probe, hookspec

SPEC_VERSION = 1


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address range: CIDR ``subnet`` and the host's address in it, ``gateway`` (or "")."""

    subnet: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """A network. ``internal`` means no way out; ``options`` as the user gave them (``-o``)."""

    id: str
    name: str
    subnets: Sequence[Subnet]
    internal: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One interface to be.

    ``ifname`` is its name inside (``eth0``), ``addresses`` are CIDR (``172.17.0.2/16``), ``mac`` is
    ``02:..`` lower-case hex. ``default_route``: this endpoint gets the default route through
    the network's gateway.
    """

    id: str
    ifname: str
    mac: str
    addresses: Sequence[str]
    default_route: bool = True


@dataclass(frozen=True, slots=True)
class Port:
    """One published port; ``protocol`` is ``tcp``, ``udp`` or ``sctp``.

    ``host_ip`` may be "" for every address of the host. ``host_port`` is never 0: the core
    picks and reserves it (by a bound socket) before the call.
    """

    protocol: str
    container_port: int
    host_port: int
    host_ip: str = ""


class NetworkBackend(Protocol):
    """The hooks every network backend has.

    Capabilities: ``publish`` (without it the core refuses ``-p`` on its networks),
    ``ipv6``, ``internal``, ``gateway`` (the host has the gateway address on this network, so the
    core's DNS can listen there, and the core can carry to published ports what comes over ``::1``,
    or over IPv6 to a container without it).
    """

    spec_version: ClassVar[int]
    capabilities: ClassVar[frozenset[str]]

    @hookspec(firstresult=True)
    def probe(self) -> Probe:
        """Tell whether this backend works here; at most 1 s, no lasting effect."""
        ...

    @hookspec(firstresult=True)
    def create(self, network: Network) -> None:
        """Make the network's host side. A second call with the same value does nothing."""
        ...

    @hookspec(firstresult=True)
    def remove(self, network: Network) -> None:
        """Remove it. The core has detached all endpoints."""
        ...

    @hookspec(firstresult=True)
    def attach(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        """Connect the namespace; when it returns, the interface is up with addresses and routes.

        A second call for an attached endpoint leaves the interface alone and adds what is new:
        so the default route moves here when the endpoint that had it is gone. Raises NotFound for
        a network that was not created and a namespace that is gone, Conflict when ``ifname`` is
        taken.
        """
        ...

    @hookspec(firstresult=True)
    def detach(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        """Disconnect; ``netns`` is "" or names a path that is gone when the namespace has ended."""
        ...

    @hookspec(firstresult=True)
    def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> None:
        """Make ports of the endpoint reachable from localhost, other hosts and other containers.

        Together or not at all. Raises Conflict naming the port.
        """
        ...

    @hookspec(firstresult=True)
    def unpublish(self, network: Network, endpoint: Endpoint) -> None:
        """Take back all ports of the endpoint."""
        ...

    @hookspec(firstresult=True)
    def recover(
        self,
        networks: Sequence[Network],
        endpoints: Mapping[str, Sequence[Endpoint]],
        published: Mapping[str, Sequence[Port]],
    ) -> None:
        """Make the host agree with this list, at daemon start: mend what misses, sweep the rest.

        ``endpoints`` are by network id, ``published`` by endpoint id. Endpoints are of running
        containers: their interfaces are left alone.
        """
        ...


OPTIONAL: Mapping[str, type] = {}

#: What each capability promises; a request that needs one which the backend lacks is refused.
CAPABILITIES: Mapping[str, str] = {
    "publish": "ports of a container can be published on the host",
    "ipv6": "endpoints may have IPv6 addresses",
    "internal": "a network may have no way out",
    "gateway": "the host has the gateway's address, which connects the engine and containers",
}
