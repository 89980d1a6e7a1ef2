"""The conformance kit of the network role: one test per rule of :mod:`lading.hooks.network`.

A backend's whole test file::

    from lading.testing.network import NetworkConformance

    class TestBridge(NetworkConformance):
        target = "lading_network_bridge:Bridge"

Each test has a fresh network namespace as its host, so nothing of the real host is touched and
nothing can be left behind. Tests of a capability that the backend does not declare, or this host
lacks, skip and say why. Needs root.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from lading.backends import Loaded, Origin, assemble
from lading.errors import Conflict, NotFound, Unsupported
from lading.hooks.common import Context
from lading.hooks.network import Endpoint, Network, NetworkBackend, Port, Subnet
from lading.testing.network_lab import Lab

SERVER = 8000


@pytest.mark.root
class NetworkConformance:
    """Subclass it and name the backend: ``target`` as an entry point does, ``options`` of it."""

    target: ClassVar[str] = ""
    options: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        """The host of one test."""
        with Lab(tmp_path) as lab:
            yield lab

    def load(self, lab: Lab) -> Loaded[NetworkBackend]:
        """The backend, made anew as a daemon does at its start."""
        data, run = lab.directory / "data", lab.directory / "run"
        loaded = assemble(
            Origin("network", "tested", self.target), Context("tested", data, run, self.options)
        )
        if not loaded.probe.usable:
            pytest.skip(f"{self.target}: {loaded.probe.reason}")
        return loaded

    @pytest.fixture
    def loaded(self, lab: Lab) -> Loaded[NetworkBackend]:
        """The backend with what it says of itself."""
        return self.load(lab)

    @pytest.fixture
    def backend(self, loaded: Loaded[NetworkBackend]) -> NetworkBackend:
        """Its hooks."""
        return loaded.hook

    def need(self, loaded: Loaded[NetworkBackend], capability: str) -> None:
        """Skip without a capability."""
        if capability not in loaded.capabilities:
            pytest.skip(f"{self.target} has no capability {capability}")

    # The life of networks

    def test_a_network_is_made_and_removed_without_a_trace(
        self, lab: Lab, backend: NetworkBackend
    ) -> None:
        """``remove``: nothing stays on the host."""
        before = lab.interfaces()
        backend.create(network=network(1))
        assert lab.interfaces() != before or not lab.has_address("10.231.1.1")
        backend.remove(network=network(1))
        assert lab.interfaces() == before

    def test_creating_twice_does_nothing(self, lab: Lab, backend: NetworkBackend) -> None:
        """``create``: a second call with the same value does nothing."""
        backend.create(network=network(1))
        once = lab.interfaces()
        backend.create(network=network(1))
        assert lab.interfaces() == once

    def test_a_taken_range_is_a_conflict(self, lab: Lab, backend: NetworkBackend) -> None:
        """Conflict when an address range is taken; a failed call leaves nothing behind."""
        backend.create(network=network(1))
        before = lab.interfaces()
        other = Network("f" * 64, "other", (Subnet("10.231.0.0/16", "10.231.0.1"),))
        with pytest.raises(Conflict, match=r"10\.231\."):
            backend.create(network=other)
        assert lab.interfaces() == before

    def test_an_unknown_option_is_refused(self, lab: Lab, backend: NetworkBackend) -> None:
        """Unsupported for an option it does not know, listing those it does."""
        before = lab.interfaces()
        strange = network(1, options={"no.such.option": "1"})
        with pytest.raises(Unsupported, match=r"no\.such\.option"):
            backend.create(network=strange)
        assert lab.interfaces() == before

    def test_what_is_not_there_is_removed_silently(self, lab: Lab, backend: NetworkBackend) -> None:
        """``remove``, ``detach`` and ``unpublish`` succeed silently for what is not there."""
        backend.unpublish(network=network(1), endpoint=endpoint(1, 2))
        backend.detach(network=network(1), endpoint=endpoint(1, 2), netns="")
        backend.remove(network=network(1))

    # Endpoints

    def test_an_attached_interface_is_ready(self, lab: Lab, backend: NetworkBackend) -> None:
        """``attach``: when it returns, the interface is up with addresses and routes."""
        backend.create(network=network(1))
        netns = lab.namespace("a")
        backend.attach(network=network(1), endpoint=endpoint(1, 2), netns=netns)
        seen = lab.interface(netns, "eth0")
        assert seen.up
        assert seen.address == "10.231.1.2"
        assert seen.mac == "02:42:0a:e7:01:02"
        assert lab.default_gateway(netns) == "10.231.1.1"

    def test_without_default_route(self, lab: Lab, backend: NetworkBackend) -> None:
        """``default_route`` false: no default route; a second ``attach`` adds it."""
        backend.create(network=network(1))
        netns = lab.namespace("a")
        backend.attach(
            network=network(1), endpoint=endpoint(1, 2, default_route=False), netns=netns
        )
        assert lab.default_gateway(netns) == ""
        backend.attach(network=network(1), endpoint=endpoint(1, 2), netns=netns)
        assert lab.default_gateway(netns) == "10.231.1.1"

    def test_endpoints_of_a_network_reach_each_other(
        self, lab: Lab, backend: NetworkBackend
    ) -> None:
        """Endpoints of one network are connected."""
        one, two = lab.two(backend, network(1))
        lab.serve(two, SERVER, "two")
        assert lab.ask(one, "10.231.1.3", SERVER) == "two"

    def test_endpoints_of_two_networks_do_not(self, lab: Lab, backend: NetworkBackend) -> None:
        """Networks are apart from each other."""
        one, _ = lab.two(backend, network(1))
        other, _ = lab.two(backend, network(2))
        lab.serve(other, SERVER, "other")
        assert lab.unreachable(one, "10.231.2.2", SERVER)

    def test_two_networks_in_one_namespace(self, lab: Lab, backend: NetworkBackend) -> None:
        """A namespace may have endpoints on several networks."""
        netns = lab.namespace("a")
        for number in (1, 2):
            backend.create(network=network(number))
            backend.attach(
                network=network(number),
                endpoint=endpoint(number, 2, ifname=f"eth{number - 1}", default_route=number == 1),
                netns=netns,
            )
        assert lab.interface(netns, "eth1").address == "10.231.2.2"

    def test_a_namespace_that_is_gone_is_not_found(self, lab: Lab, backend: NetworkBackend) -> None:
        """NotFound for unknown ids; a failed call leaves nothing behind."""
        backend.create(network=network(1))
        before = lab.interfaces()
        with pytest.raises(NotFound):
            backend.attach(
                network=network(1),
                endpoint=endpoint(1, 2),
                netns=str(lab.directory / "nothing"),
            )
        with pytest.raises(NotFound):
            backend.attach(network=network(2), endpoint=endpoint(2, 2), netns=lab.namespace("a"))
        assert lab.interfaces() == before

    def test_a_taken_interface_name_is_a_conflict(self, lab: Lab, backend: NetworkBackend) -> None:
        """Conflict when an interface name is taken; a failed call leaves nothing behind."""
        backend.create(network=network(1))
        netns = lab.namespace("a")
        backend.attach(network=network(1), endpoint=endpoint(1, 2), netns=netns)
        before = lab.interfaces()
        with pytest.raises(Conflict, match="eth0"):
            backend.attach(network=network(1), endpoint=endpoint(1, 3), netns=netns)
        assert lab.interfaces() == before

    def test_detached_is_gone(self, lab: Lab, backend: NetworkBackend) -> None:
        """``detach``: the interface goes; a second call is silent."""
        backend.create(network=network(1))
        before = lab.interfaces()
        netns = lab.namespace("a")
        backend.attach(network=network(1), endpoint=endpoint(1, 2), netns=netns)
        for _ in range(2):
            backend.detach(network=network(1), endpoint=endpoint(1, 2), netns=netns)
        assert lab.interfaces() == before
        assert lab.interfaces(netns) == ["lo"]

    def test_detach_after_the_namespace_has_ended(self, lab: Lab, backend: NetworkBackend) -> None:
        """``detach``: ``netns`` is "" when the namespace has ended."""
        backend.create(network=network(1))
        before = lab.interfaces()
        netns = lab.namespace("a")
        backend.attach(network=network(1), endpoint=endpoint(1, 2), netns=netns)
        lab.end(netns)
        backend.detach(network=network(1), endpoint=endpoint(1, 2), netns="")
        assert lab.interfaces() == before

    def test_many_threads(self, lab: Lab, backend: NetworkBackend) -> None:
        """All hooks may be called from many threads."""
        backend.create(network=network(1))
        failures: list[BaseException] = []
        namespaces = [lab.namespace(f"n{n}") for n in range(8)]

        def attach(n: int) -> None:
            try:
                backend.attach(network=network(1), endpoint=endpoint(1, 2 + n), netns=namespaces[n])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=attach, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        shown = [lab.interface(netns, "eth0").address for netns in namespaces]
        assert shown == [f"10.231.1.{2 + n}" for n in range(8)]

    # The world outside

    def test_containers_reach_other_hosts_with_the_hosts_address(
        self, lab: Lab, backend: NetworkBackend
    ) -> None:
        """A network that is not internal has a way out."""
        one, _ = lab.two(backend, network(1))
        other = lab.other_host()
        lab.serve(other, SERVER)
        assert lab.ask(one, lab.OTHER, SERVER) == lab.HOST

    def test_nobody_outside_reaches_what_is_not_published(
        self, lab: Lab, backend: NetworkBackend
    ) -> None:
        """Only what is published is reachable from other hosts."""
        one, _ = lab.two(backend, network(1))
        other = lab.other_host()
        lab.serve(one, SERVER, "secret")
        assert lab.unreachable(other, "10.231.1.2", SERVER)

    def test_an_internal_network_has_no_way_out(
        self, lab: Lab, loaded: Loaded[NetworkBackend]
    ) -> None:
        """``internal`` means no way out."""
        self.need(loaded, "internal")
        one, two = lab.two(loaded.hook, network(1, internal=True))
        other = lab.other_host()
        lab.serve(other, SERVER, "outside")
        lab.serve(two, SERVER, "two")
        assert lab.ask(one, "10.231.1.3", SERVER) == "two"
        assert lab.unreachable(one, lab.OTHER, SERVER)

    def test_the_host_has_the_gateway_address(
        self, lab: Lab, loaded: Loaded[NetworkBackend]
    ) -> None:
        """``gateway``: the host has the gateway address on this network."""
        self.need(loaded, "gateway")
        one, _ = lab.two(loaded.hook, network(1))
        lab.serve(None, SERVER, "host", address="10.231.1.1")
        assert lab.ask(one, "10.231.1.1", SERVER) == "host"

    def test_ipv6(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``ipv6``: endpoints with such addresses use them at once."""
        self.need(loaded, "ipv6")
        if not socket.has_ipv6:
            pytest.skip("this host has no IPv6")
        one, two = lab.two(loaded.hook, network(1, ipv6=True), ipv6=True)
        lab.serve(two, SERVER, "two", address="fd31:1::3")
        assert lab.ask(one, "fd31:1::3", SERVER) == "two"

    # Published ports

    def test_published_ports_are_reached_from_everywhere(
        self, lab: Lab, loaded: Loaded[NetworkBackend]
    ) -> None:
        """``publish``: from localhost, other hosts and other containers."""
        self.need(loaded, "publish")
        one, two = lab.two(loaded.hook, network(1))
        elsewhere, _ = lab.two(loaded.hook, network(2))
        other = lab.other_host()
        lab.serve(one, SERVER, "one")
        loaded.hook.publish(
            network=network(1), endpoint=endpoint(1, 2), ports=[Port("tcp", SERVER, 9000)]
        )
        askers = {
            "localhost": lab.ask(None, "127.0.0.1", 9000),
            "the host's own address": lab.ask(None, lab.HOST, 9000),
            "the gateway address": lab.ask(None, "10.231.1.1", 9000),
            "another host": lab.ask(other, lab.HOST, 9000),
            "a container beside it": lab.ask(two, lab.HOST, 9000),
            "a container on another network": lab.ask(elsewhere, lab.HOST, 9000),
            "the container itself": lab.ask(one, lab.HOST, 9000),
        }
        assert askers == dict.fromkeys(askers, "one")

    def test_published_on_one_address_only(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``host_ip``: the port is there and nowhere else."""
        self.need(loaded, "publish")
        one, _ = lab.two(loaded.hook, network(1))
        other = lab.other_host()
        lab.serve(one, SERVER, "one")
        port = Port("tcp", SERVER, 9000, "127.0.0.1")
        loaded.hook.publish(network=network(1), endpoint=endpoint(1, 2), ports=[port])
        assert lab.ask(None, "127.0.0.1", 9000) == "one"
        assert lab.unreachable(None, lab.HOST, 9000)
        assert lab.unreachable(other, lab.HOST, 9000)

    def test_published_datagrams(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``protocol`` may be udp."""
        self.need(loaded, "publish")
        one, _ = lab.two(loaded.hook, network(1))
        other = lab.other_host()
        lab.serve(one, SERVER, "one", kind=socket.SOCK_DGRAM)
        loaded.hook.publish(
            network=network(1), endpoint=endpoint(1, 2), ports=[Port("udp", SERVER, 9000)]
        )
        for asker, address in ((None, "127.0.0.1"), (other, lab.HOST)):
            assert lab.ask(asker, address, 9000, kind=socket.SOCK_DGRAM) == "one"

    def test_published_in_ipv6(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``ipv6`` and ``publish``: the host's IPv6 addresses have the port as well."""
        self.need(loaded, "publish")
        self.need(loaded, "ipv6")
        one, _ = lab.two(loaded.hook, network(1, ipv6=True), ipv6=True)
        other = lab.other_host()
        lab.serve(one, SERVER, "one", address="::")
        loaded.hook.publish(
            network=network(1),
            endpoint=endpoint(1, 2, ipv6=True),
            ports=[Port("tcp", SERVER, 9000)],
        )
        assert lab.ask(other, lab.HOST6, 9000) == "one"
        assert lab.ask(other, lab.HOST, 9000) == "one"

    def test_unpublished_is_closed(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``unpublish``: all ports of the endpoint are taken back."""
        self.need(loaded, "publish")
        one, _ = lab.two(loaded.hook, network(1))
        lab.serve(one, SERVER, "one")
        ports = [Port("tcp", SERVER, 9000), Port("tcp", SERVER, 9001, "127.0.0.1")]
        loaded.hook.publish(network=network(1), endpoint=endpoint(1, 2), ports=ports)
        loaded.hook.unpublish(network=network(1), endpoint=endpoint(1, 2))
        assert lab.unreachable(None, "127.0.0.1", 9000)
        assert lab.unreachable(None, "127.0.0.1", 9001)

    def test_ports_are_published_together_or_not_at_all(
        self, lab: Lab, loaded: Loaded[NetworkBackend]
    ) -> None:
        """``publish``: Conflict naming the port, and none of the others is published."""
        self.need(loaded, "publish")
        one, two = lab.two(loaded.hook, network(1))
        lab.serve(one, SERVER, "one")
        lab.serve(two, SERVER, "two")
        loaded.hook.publish(
            network=network(1), endpoint=endpoint(1, 2), ports=[Port("tcp", SERVER, 9001)]
        )
        both = [Port("tcp", SERVER, 9000), Port("tcp", SERVER, 9001)]
        with pytest.raises(Conflict, match="9001"):
            loaded.hook.publish(network=network(1), endpoint=endpoint(1, 3), ports=both)
        assert lab.unreachable(None, "127.0.0.1", 9000)
        assert lab.ask(None, "127.0.0.1", 9001) == "one"

    # A daemon that starts again

    def test_recovery_keeps_what_runs(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``recover``: interfaces of running containers are left alone, ports published again."""
        self.need(loaded, "publish")
        one, _ = lab.two(loaded.hook, network(1))
        lab.serve(one, SERVER, "one")
        ports = [Port("tcp", SERVER, 9000)]
        loaded.hook.publish(network=network(1), endpoint=endpoint(1, 2), ports=ports)
        before = lab.interfaces()
        again = self.load(lab).hook
        again.recover(
            networks=[network(1)],
            endpoints={network(1).id: [endpoint(1, 2), endpoint(1, 3)]},
            published={endpoint(1, 2).id: ports},
        )
        assert lab.interfaces() == before
        assert lab.ask(None, "127.0.0.1", 9000) == "one"
        again.unpublish(network=network(1), endpoint=endpoint(1, 2))
        assert lab.unreachable(None, "127.0.0.1", 9000)

    def test_recovery_mends(self, lab: Lab, backend: NetworkBackend) -> None:
        """``recover``: what misses is made, as after a reboot."""
        backend.recover(networks=[network(1)], endpoints={network(1).id: []}, published={})
        one, two = lab.two(backend, network(1))
        lab.serve(two, SERVER, "two")
        assert lab.ask(one, "10.231.1.3", SERVER) == "two"

    def test_recovery_sweeps_the_rest(self, lab: Lab, loaded: Loaded[NetworkBackend]) -> None:
        """``recover``: what is of nobody is removed, and only what is our own."""
        before = lab.interfaces()
        lab.other_host()
        beside = lab.interfaces()
        lab.two(loaded.hook, network(1))
        lab.two(loaded.hook, network(2))
        again = self.load(lab).hook
        again.recover(
            networks=[network(1)], endpoints={network(1).id: [endpoint(1, 2)]}, published={}
        )
        again.detach(network=network(1), endpoint=endpoint(1, 2), netns=lab.path("n1-2"))
        again.remove(network=network(1))
        assert lab.interfaces() == beside
        assert set(before) < set(beside)


def network(
    number: int,
    *,
    internal: bool = False,
    ipv6: bool = False,
    options: dict[str, str] | None = None,
) -> Network:
    """A network for a test: 10.231.``number``.0/24, and fd31:``number``::/64 with ``ipv6``."""
    subnets = [Subnet(f"10.231.{number}.0/24", f"10.231.{number}.1")]
    if ipv6:
        subnets.append(Subnet(f"fd31:{number}::/64", f"fd31:{number}::1"))
    return Network(f"{number:x}" * 64, f"net{number}", tuple(subnets), internal, options or {})


def endpoint(
    number: int,
    host: int,
    *,
    ifname: str = "eth0",
    ipv6: bool = False,
    default_route: bool = True,
) -> Endpoint:
    """An endpoint for a test: address ``host`` of :func:`network` ``number``."""
    addresses = [f"10.231.{number}.{host}/24"]
    if ipv6:
        addresses.append(f"fd31:{number}::{host:x}/64")
    mac = f"02:42:0a:e7:{number:02x}:{host:02x}"
    return Endpoint(f"{number:032x}{host:032x}", ifname, mac, tuple(addresses), default_route)
