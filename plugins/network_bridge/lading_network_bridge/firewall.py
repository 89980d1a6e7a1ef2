"""What a firewall must do for bridges; :mod:`.nftables` and :mod:`.iptables` each do it.

For each network: traffic from its subnets leaves with the host's address (masquerade); nothing
from outside or from other networks comes in but answers and what is published; an internal
network has no way out at all. Containers never reach the host's 127.0.0.0/8, for which
``route_localnet`` on the bridge opens the way of localhost to published ports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lading.hooks.network import Port


@dataclass(frozen=True, slots=True)
class Ruled:
    """A network as rules see it; ``subnets`` are CIDR of both IP versions.

    ``icc``: containers of the network reach each other. Rules see that traffic only where
    ``br_netfilter`` shows them bridged packets; elsewhere the ports of the bridge are isolated.
    """

    id: str
    bridge: str
    subnets: Sequence[str]
    internal: bool
    masquerade: bool
    icc: bool


@dataclass(frozen=True, slots=True)
class Forward:
    """A host port that leads to a container; both addresses are of IP version ``version``.

    ``host_ip`` "" stands for every address of the host.
    """

    version: int
    protocol: str
    host_ip: str
    host_port: int
    address: str
    port: int


class Firewall(Protocol):
    """One daemon's rules in one network namespace. The caller serialises the calls.

    Each call is done as a whole or not at all, and raises OSError with the tool's words.
    """

    name: str

    def replace(self, networks: Sequence[Ruled], forwards: Sequence[Forward]) -> None:
        """Make exactly these rules, whatever was there; empty ones remove every trace."""
        ...

    def add_network(self, network: Ruled) -> None:
        """Rules of a network."""
        ...

    def remove_network(self, network: Ruled) -> None:
        """Take them back."""
        ...

    def add_forwards(self, forwards: Sequence[Forward]) -> None:
        """Publish."""
        ...

    def remove_forwards(self, forwards: Sequence[Forward]) -> None:
        """Take it back; silent for what is not there."""
        ...


def forwards(ports: Sequence[Port], addresses: Sequence[str], host_ip: str) -> list[Forward]:
    """The ways in for ports of an endpoint; ``host_ip`` is the network's default, or ""."""
    found = []
    for port in ports:
        wanted = port.host_ip or host_ip
        for cidr in addresses:
            address = cidr.partition("/")[0]
            version = 6 if ":" in address else 4
            if wanted in ("", ANY[version]):
                shown = ""
            elif (":" in wanted) == (version == 6):
                shown = wanted
            else:
                continue
            found.append(
                Forward(version, port.protocol, shown, port.host_port, address, port.container_port)
            )
    return found


#: How each IP version writes "every address".
ANY = {4: "0.0.0.0", 6: "::"}
