"""The host's side of a network: the bridge, its address and the settings of its own."""

from __future__ import annotations

import errno
import ipaddress
import logging
import secrets

from lading.errors import Conflict, Invalid
from lading.hooks.network import Network
from lading_network_bridge import netlink, options, sysctls
from lading_network_bridge.netlink import Link, Message, Netlink
from lading_network_bridge.options import Options

log = logging.getLogger(__name__)

#: What the alias of every interface that we make begins with.
ALIAS = "lading"


class Bridges:
    """Makes and removes bridges; ``tag`` marks those of this daemon."""

    def __init__(self, netlink: Netlink, tag: str) -> None:
        self._netlink = netlink
        self._tag = tag

    def alias(self, network_id: str) -> str:
        """What the bridge of a network has as its alias."""
        return f"{ALIAS} {self._tag} {network_id[:12]}"

    def make(self, network: Network, wanted: Options) -> int:
        """The bridge, up and with its addresses; returns the index.

        A bridge that the admin has made under the name that the network names is used as it is.
        Raises Conflict for a name or an address range that is something else's.
        """
        links = self._netlink.links()
        link = links.get(wanted.bridge)
        if link is not None:
            self._check_owner(network, wanted, link)
        addresses = self._netlink.addresses()
        self._check_ranges(network, link.index if link else 0, links, addresses)
        if link is None:
            index = self._create(network, wanted)
        else:
            index = link.index
        have = {cidr for at, cidr in addresses if at == index}
        try:
            self._set_up(network, wanted, index, have)
        except OSError:
            if link is None:
                self._netlink.run([netlink.delete_link(wanted.bridge)])
            raise
        return index

    def _check_owner(self, network: Network, wanted: Options, link: Link) -> None:
        owned = link.alias.startswith(f"{ALIAS} ") and link.alias != self.alias(network.id)
        if owned or link.kind != "bridge" or not (wanted.chosen or link.alias):
            whose = f'of "{link.alias}"' if owned else f"a {link.kind or 'physical'} interface"
            raise Conflict(
                f'network "{network.name}": the interface "{link.name}" exists and is {whose}',
                hint=f"choose another name with -o {options.NAME}=NAME, or remove it",
            )

    def _check_ranges(
        self,
        network: Network,
        index: int,
        links: dict[str, Link],
        addresses: list[tuple[int, str]],
    ) -> None:
        names = {link.index: link.name for link in links.values()}
        for subnet in network.subnets:
            wanted = ipaddress.ip_network(subnet.subnet, strict=False)
            for at, cidr in addresses:
                taken = ipaddress.ip_interface(cidr).network
                if at != index and taken.version == wanted.version and wanted.overlaps(taken):
                    raise Conflict(
                        f'network "{network.name}": the range {wanted} overlaps with the address '
                        f'{cidr} of interface "{names.get(at, at)}"'
                    )

    def _create(self, network: Network, wanted: Options) -> int:
        mac = bytes((0x02, 0x42, *secrets.token_bytes(4)))
        body = netlink.ifinfo() + netlink.text(netlink.IFLA_IFNAME, wanted.bridge)
        # An address of its own keeps the bridge from changing it with each port.
        body += netlink.attribute(netlink.IFLA_ADDRESS, mac)
        body += netlink.number(netlink.IFLA_MTU, wanted.mtu)
        body += netlink.nested(
            netlink.IFLA_LINKINFO, netlink.text(netlink.IFLA_INFO_KIND, "bridge")
        )
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
        what = f'create bridge "{wanted.bridge}"'
        alias = netlink.text(netlink.IFLA_IFALIAS, self.alias(network.id))
        batch = [
            Message(netlink.RTM_NEWLINK, flags, body, what),
            netlink.change_named(wanted.bridge, f'mark "{wanted.bridge}"', alias),
        ]
        try:
            self._netlink.run(batch)
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise Conflict(f"{what}: the name is taken") from error
            if error.errno == errno.ERANGE:
                raise Invalid(f"{what}: {error.strerror}") from error
            raise
        return self._netlink.links()[wanted.bridge].index

    def _set_up(self, network: Network, wanted: Options, index: int, have: set[str]) -> None:
        name = wanted.bridge
        link = self._netlink.links()[name]
        if link.mtu != wanted.mtu and link.alias == self.alias(network.id):
            mtu = netlink.number(netlink.IFLA_MTU, wanted.mtu)
            self._netlink.run([netlink.change_link(index, f'set up "{name}"', mtu)])
        cidrs = list(gateways(network))
        sysctls.quiet_ipv6(name, enabled=any(":" in cidr for cidr in cidrs))
        messages = [netlink.new_address(index, cidr) for cidr in cidrs if cidr not in have]
        if not link.up:
            messages.append(netlink.change_link(index, f'bring up "{name}"', up=True))
        if messages:
            self._netlink.run(messages)
        # Localhost's way to published ports: 127/8 may be routed over this interface, no other.
        sysctls.write(f"ipv4/conf/{name}/route_localnet", "1")

    def remove(self, network: Network, wanted: Options) -> None:
        """Remove the bridge if it is ours; silent when it is not there."""
        link = self._netlink.links().get(wanted.bridge)
        if link is not None and link.alias == self.alias(network.id):
            self._netlink.run([netlink.delete_link(wanted.bridge)])

    def own(self) -> dict[str, Link]:
        """All bridges of this daemon by name."""
        prefix = f"{ALIAS} {self._tag} "
        return {n: k for n, k in self._netlink.links().items() if k.alias.startswith(prefix)}


def gateways(network: Network) -> list[str]:
    """The host's addresses in a network, CIDR."""
    return [
        f"{s.gateway}/{ipaddress.ip_network(s.subnet, strict=False).prefixlen}"
        for s in network.subnets
        if s.gateway
    ]
