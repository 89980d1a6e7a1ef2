"""Which firewall this host can have: nftables before iptables before none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from lading_network_bridge.firewall import Firewall, Forward, Ruled
from lading_network_bridge.iptables import Iptables, usable
from lading_network_bridge.nftables import LIBRARY, Nft, Nftables, dry_run

log = logging.getLogger(__name__)

NAMES = ("nftables", "iptables", "none")


class NoFirewall(Firewall):
    """Bridges without rules: containers reach each other and the host, nothing more."""

    name = "none"

    def replace(self, networks: Sequence[Ruled], forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""

    def add_network(self, network: Ruled) -> None:
        """See :class:`Firewall`."""

    def remove_network(self, network: Ruled) -> None:
        """See :class:`Firewall`."""

    def add_forwards(self, forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""

    def remove_forwards(self, forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The firewall that was chosen, and why not the ones before it."""

    name: str
    reasons: Sequence[str] = ()

    def make(self, tag: str) -> Firewall:
        """The firewall itself, for the network namespace of the calling thread."""
        makers = {"nftables": Nftables, "iptables": Iptables}
        return makers[self.name](tag) if self.name in makers else NoFirewall()


def choose(wanted: str = "") -> Choice:
    """Try what there is, changing nothing; ``wanted`` is the one that config asks for."""
    if wanted:
        return Choice(wanted)
    reasons: list[str] = []
    for name, trial in (("nftables", _nftables), ("iptables", lambda: usable()[1])):
        reason = trial()
        if not reason:
            return Choice(name, reasons)
        reasons.append(f"{name}: {reason}")
    return Choice("none", reasons)


def _nftables() -> str:
    try:
        nft = Nft()
    except OSError as error:
        if error.errno is None:
            return f"{LIBRARY} is not installed (Debian: libnftables1)"
        return f"the kernel has no nf_tables: {error.strerror}"
    try:
        dry_run(nft)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        nft.close()
    return ""
