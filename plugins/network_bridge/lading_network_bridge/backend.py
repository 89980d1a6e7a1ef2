"""The hooks of the bridge backend; see the package for how it works."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from lading.errors import Conflict, Invalid, NotFound, Unsupported
from lading.hooks.common import Context, Probe, hookimpl
from lading.hooks.network import Endpoint, Network, NetworkBackend, Port
from lading_network_bridge import choice, netlink, options, sysctls
from lading_network_bridge.bridges import Bridges
from lading_network_bridge.conntrack import forget_datagrams
from lading_network_bridge.firewall import Firewall, Forward, Ruled, forwards
from lading_network_bridge.namespaces import inside, open_namespace
from lading_network_bridge.netlink import Netlink
from lading_network_bridge.options import Options
from lading_network_bridge.passage import Passage

log = logging.getLogger(__name__)

#: How long a namespace that has ended may take to let go of its interfaces.
VANISH_SECONDS = 0.5

#: How long an interface may take to get its carrier; it works without, only later.
CARRIER_SECONDS = 0.5

#: Whether bridged packets see the rules for routed ones.
BRIDGE_NETFILTER = "bridge/bridge-nf-call-iptables"


class Bridge:
    """Linux bridges, veth pairs, and NAT by nftables or iptables."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"publish", "ipv6", "internal", "gateway"})

    def __init__(self, context: Context) -> None:
        # Two daemons side by side differ in their directories.
        self._tag = hashlib.blake2b(os.fsencode(context.data), digest_size=4).hexdigest()
        self._wanted_firewall = str(context.options.get("firewall", ""))
        if not context.options.get("iptables", True):
            self._wanted_firewall = "none"
        self._forwards = bool(context.options.get("ip-forward", True))
        self._passage = Passage(self._tag)
        self._lock = threading.Lock()
        self._indexes: dict[str, tuple[int, Options]] = {}
        self._published: dict[str, list[Forward]] = {}
        self._bridged: bool | None = None

    @cached_property
    def _host(self) -> int:
        """The host's network namespace, where this object works for the rest of its life."""
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @cached_property
    def _netlink(self) -> Netlink:
        return Netlink()

    @cached_property
    def _bridges(self) -> Bridges:
        return Bridges(self._netlink, self._tag)

    @cached_property
    def _chosen(self) -> choice.Choice:
        return choice.choose(self._wanted_firewall)

    @cached_property
    def _firewall(self) -> Firewall:
        for reason in self._chosen.reasons:
            log.warning("firewall: %s", reason)
        return self._chosen.make(self._tag)

    @hookimpl
    def probe(self) -> Probe:
        """See the contract."""
        if self._wanted_firewall not in ("", *choice.NAMES):
            return Probe(
                False,
                f'the option firewall is "{self._wanted_firewall}"',
                f"choose one of {', '.join(choice.NAMES)}",
            )
        try:
            self._netlink.links()
        except OSError as error:
            return Probe(False, f"rtnetlink does not answer: {error}", "run it as root")
        warnings = list(self._chosen.reasons)
        if self._chosen.name == "none":
            warnings.append("no firewall: containers have no way out and no published ports")
        if sysctls.read("ipv4/ip_forward") != "1":
            warnings.append("net.ipv4.ip_forward is off; it is enabled with the first network")
        return Probe(
            True,
            version=os.uname().release,
            details={"Firewall": self._chosen.name},
            warnings=warnings,
        )

    @hookimpl
    def create(self, network: Network) -> None:
        """See the contract."""
        wanted = self._read(network)
        self._bridged = None  # it may have changed since the last network was made
        with self._lock:
            index = self._bridges.make(network, wanted)
            try:
                self._firewall.add_network(_ruled(network, wanted))
            except OSError:
                self._bridges.remove(network, wanted)
                raise
            self._indexes[network.id] = (index, wanted)
            self._forward(network)
            if self._firewall.name == "nftables":
                self._passage.open(wanted.bridge)

    def _read(self, network: Network) -> Options:
        wanted = options.read(network)
        if not network.subnets:
            raise Invalid(f'network "{network.name}" has no address range')
        return wanted

    def _forward(self, network: Network) -> None:
        """Let the host route. A host where that is forbidden still has bridges."""
        if network.internal or not self._forwards or self._firewall.name == "none":
            return
        if sysctls.read("ipv4/ip_forward") == "0":
            log.info("enabling net.ipv4.ip_forward")
            sysctls.write("ipv4/ip_forward", "1")
        if any(":" in s.subnet for s in network.subnets):
            sysctls.write("ipv6/conf/all/forwarding", "1")

    @hookimpl
    def remove(self, network: Network) -> None:
        """See the contract."""
        wanted = options.read(network)
        with self._lock:
            self._indexes.pop(network.id, None)
            self._firewall.remove_network(_ruled(network, wanted))
            if self._firewall.name == "nftables":
                self._passage.close(wanted.bridge)
            self._bridges.remove(network, wanted)

    @hookimpl
    def attach(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        """See the contract."""
        index, wanted = self._bridge_of(network)
        name = options.veth_name(endpoint.id)
        target = open_namespace(netns)
        try:
            with inside(target, self._host):
                far = Netlink()
            with far:
                new = self._connect(name, index, wanted, endpoint, target)
                try:
                    self._configure(far, network, endpoint, target)
                    self._wait_until_operational(wanted.bridge, name)
                except OSError:
                    if new:
                        self._netlink.run([netlink.delete_link(name)])
                    raise
        finally:
            os.close(target)

    def _bridge_of(self, network: Network) -> tuple[int, Options]:
        found = self._indexes.get(network.id)
        if found is None:
            wanted = options.read(network)
            link = self._netlink.links().get(wanted.bridge)
            if link is None:
                raise NotFound(f'network "{network.name}" has no bridge "{wanted.bridge}"')
            found = self._indexes[network.id] = (link.index, wanted)
        return found

    def _connect(
        self, name: str, index: int, wanted: Options, endpoint: Endpoint, target: int
    ) -> bool:
        """Make the pair; False when it is there already and only its routes may have changed."""
        peer = netlink.ifinfo() + netlink.text(netlink.IFLA_IFNAME, endpoint.ifname)
        peer += netlink.attribute(netlink.IFLA_ADDRESS, netlink.mac_bytes(endpoint.mac))
        peer += netlink.number(netlink.IFLA_MTU, wanted.mtu)
        peer += netlink.number(netlink.IFLA_NET_NS_FD, target)
        batch = [
            netlink.new_veth(name, index, wanted.mtu, peer),
            netlink.bring_up_without_ipv6(name),
        ]
        try:
            self._netlink.run(batch)
        except OSError as error:
            link = self._netlink.links().get(name)
            if error.errno == errno.EEXIST and link is None:
                raise Conflict(
                    f'{error.strerror}: the namespace has "{endpoint.ifname}"'
                ) from error
            if error.errno == errno.EEXIST and link is not None and link.master == index:
                return False
            if link is not None:
                self._netlink.run([netlink.delete_link(name)])
            raise
        if not wanted.icc and not self._rules_see_bridged():
            self._set_port(name, netlink.IFLA_BRPORT_ISOLATED)
        return True

    def _set_port(self, name: str, flag: int) -> None:
        """Set a flag of a bridge's port; silent when the port is gone."""
        index = self._netlink.index(name)
        if index:
            on = netlink.attribute(flag, b"\1")
            self._netlink.run([netlink.change_port(index, f'set up port "{name}"', on)])

    def _configure(self, far: Netlink, network: Network, endpoint: Endpoint, target: int) -> None:
        if any(":" in cidr for cidr in endpoint.addresses):
            with inside(target, self._host):
                sysctls.quiet_ipv6(endpoint.ifname, enabled=True)
        index = far.index(endpoint.ifname)
        batch = [netlink.change_link(index, f'bring up "{endpoint.ifname}"', up=True)]
        batch += [netlink.new_address(index, cidr) for cidr in endpoint.addresses]
        if endpoint.default_route and not network.internal:
            versions = {":" in cidr for cidr in endpoint.addresses}
            batch += [
                netlink.default_route(index, subnet.gateway)
                for subnet in network.subnets
                if subnet.gateway and (":" in subnet.gateway) in versions
            ]
        far.run(batch)

    def _wait_until_operational(self, *names: str) -> None:
        """Wait for interfaces that were brought up before what gives them a carrier.

        The kernel notices the carrier a little later; until then it drops what goes to the
        container, and a lost ARP request costs a whole second.
        """
        give_up = time.monotonic() + CARRIER_SECONDS
        for name in names:
            while not self._netlink.operational(name) and time.monotonic() < give_up:
                time.sleep(0.0002)

    @hookimpl
    def detach(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        """See the contract."""
        name = options.veth_name(endpoint.id)
        if not netns or not os.path.exists(netns):
            # The kernel takes the pair away with the namespace, many at a time and far faster
            # than one by one.
            give_up = time.monotonic() + VANISH_SECONDS
            pause = 0.002
            while self._netlink.index(name) and time.monotonic() < give_up:
                time.sleep(pause)
                pause = min(2 * pause, 0.03)
        try:
            self._netlink.run([netlink.delete_link(name)])
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    @hookimpl
    def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> None:
        """See the contract."""
        if self._firewall.name == "none":
            raise Unsupported(
                "publish ports: this host has neither nftables nor iptables",
                hint="; ".join(self._chosen.reasons),
            )
        _, wanted = self._bridge_of(network)
        ways = forwards(ports, endpoint.addresses, wanted.host_ip)
        with self._lock:
            if taken := self._taken(ways):
                raise Conflict(
                    f"port {taken.host_port}/{taken.protocol} is published for {taken.address}"
                )
            self._firewall.add_forwards(ways)
            self._published.setdefault(endpoint.id, []).extend(ways)
        forget_datagrams(_datagram_ports(ways))
        if self._rules_see_bridged():
            # What a container sends to its own published port is then led back to it by the bridge
            # itself, which sends a frame out where it came in only in this mode.
            self._set_port(options.veth_name(endpoint.id), netlink.IFLA_BRPORT_MODE)

    def _rules_see_bridged(self) -> bool:
        if self._bridged is None:
            seen = self._firewall.name != "none" and sysctls.read(BRIDGE_NETFILTER) == "1"
            self._bridged = seen
        return self._bridged

    def _taken(self, ways: Sequence[Forward]) -> Forward | None:
        keys = {(f.version, f.protocol, f.host_ip, f.host_port) for f in ways}
        for published in self._published.values():
            for f in published:
                if (f.version, f.protocol, f.host_ip, f.host_port) in keys:
                    return f
        return None

    @hookimpl
    def unpublish(self, network: Network, endpoint: Endpoint) -> None:
        """See the contract."""
        with self._lock:
            ways = self._published.pop(endpoint.id, [])
            self._firewall.remove_forwards(ways)
        forget_datagrams(_datagram_ports(ways))

    @hookimpl
    def recover(
        self,
        networks: Sequence[Network],
        endpoints: Mapping[str, Sequence[Endpoint]],
        published: Mapping[str, Sequence[Port]],
    ) -> None:
        """See the contract."""
        known = [(network, self._read(network)) for network in networks]
        ways: dict[str, list[Forward]] = {}
        with self._lock:
            for network, wanted in known:
                try:
                    index = self._bridges.make(network, wanted)
                except (Conflict, OSError) as error:
                    log.warning('network "%s": %s', network.name, error)
                    continue
                self._indexes[network.id] = (index, wanted)
                for endpoint in endpoints.get(network.id, ()):
                    ports = published.get(endpoint.id, ())
                    ways[endpoint.id] = forwards(ports, endpoint.addresses, wanted.host_ip)
            self._firewall.replace(
                [_ruled(network, wanted) for network, wanted in known],
                [f for found in ways.values() for f in found],
            )
            self._published = {key: found for key, found in ways.items() if found}
            self._sweep(
                {wanted.bridge for _, wanted in known},
                {options.veth_name(e.id) for group in endpoints.values() for e in group},
            )
            for network, _ in known:
                self._forward(network)
            if self._firewall.name == "nftables":
                self._passage.keep([wanted.bridge for _, wanted in known])

    def _sweep(self, bridges: set[str], ports: set[str]) -> None:
        """Remove what a daemon of ours left and nobody knows any more."""
        own = self._bridges.own()
        masters = {link.index for link in own.values()}
        stale = [
            link.name
            for link in self._netlink.links().values()
            if link.kind == "veth" and link.master in masters and link.name not in ports
        ]
        stale += [name for name in own if name not in bridges]
        for name in stale:
            log.info('sweep interface "%s"', name)
        netlink.delete_links(self._netlink, stale)


def _ruled(network: Network, wanted: Options) -> Ruled:
    subnets = tuple(s.subnet for s in network.subnets)
    return Ruled(
        network.id, wanted.bridge, subnets, network.internal, wanted.masquerade, wanted.icc
    )


def _datagram_ports(ways: Sequence[Forward]) -> set[int]:
    return {f.host_port for f in ways if f.protocol == "udp"}


def _conforms(backend: Bridge) -> NetworkBackend:
    """For the type checker: a Bridge has all hooks of its role."""
    return backend
