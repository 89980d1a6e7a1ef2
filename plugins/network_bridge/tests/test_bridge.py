"""What the bridge backend does beyond its contract: Docker's options, other people's things."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lading.errors import Conflict, Invalid, NotFound
from lading.hooks.common import Context
from lading.hooks.network import Network, Port, Subnet
from lading.testing.network import SERVER, endpoint, network
from lading.testing.network_lab import Lab
from lading_network_bridge import Bridge, iptables

pytestmark = pytest.mark.root

PREFIX = "com.docker.network.bridge."


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


@pytest.fixture
def bridge(lab: Lab) -> Bridge:
    return make(lab, "data")


def make(lab: Lab, name: str, **options: str) -> Bridge:
    place = lab.directory / name
    return Bridge(Context("bridge", place, place, options))


def ip(line: str) -> str:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=True)
    return done.stdout


def tables() -> str:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return done.stdout


def named(**options: str) -> Network:
    return network(1, options={PREFIX + key: value for key, value in options.items()})


def test_the_name_of_the_bridge(lab: Lab, bridge: Bridge) -> None:
    bridge.create(network=network(2))
    bridge.create(network=named(name="ldtnamed"))
    assert lab.interfaces() == [f"br-{'2' * 12}", "ldtnamed", "lo"]


@pytest.mark.parametrize(
    "options",
    [
        {f"{PREFIX}name": "much-too-long-a-name"},
        {f"{PREFIX}name": "a/b"},
        {f"{PREFIX}enable_icc": "perhaps"},
        {"com.docker.network.driver.mtu": "many"},
        {"com.docker.network.driver.mtu": "20"},
    ],
)
def test_wrong_values_are_named(lab: Lab, bridge: Bridge, options: Mapping[str, str]) -> None:
    with pytest.raises(Invalid, match=next(iter(options.values()))):
        bridge.create(network=network(1, options=dict(options)))
    assert lab.interfaces() == ["lo"]


def test_a_network_without_a_range_is_refused(bridge: Bridge) -> None:
    with pytest.raises(Invalid, match="address range"):
        bridge.create(network=Network("1" * 64, "net1", ()))


def test_mtu(lab: Lab, bridge: Bridge) -> None:
    wanted = network(1, options={"com.docker.network.driver.mtu": "1400"})
    one, _ = lab.two(bridge, wanted)
    with lab.inside(one):
        assert "mtu 1400" in ip("link show eth0")
    assert "mtu 1400" in ip(f"link show br-{'1' * 12}")


@pytest.mark.parametrize("seen", ["0", "1"])
def test_containers_without_icc_do_not_reach_each_other(
    lab: Lab, bridge: Bridge, seen: str
) -> None:
    """With and without br_netfilter, which shows the rules bridged packets."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if switch.exists():
        switch.write_text(seen)
    elif seen == "1":
        pytest.skip("this kernel has no br_netfilter loaded")
    one, two = lab.two(bridge, named(enable_icc="false"))
    lab.serve(two, SERVER, "two")
    assert lab.unreachable(one, "10.231.1.3", SERVER)
    bridge.publish(
        network=named(enable_icc="false"),
        endpoint=endpoint(1, 3),
        ports=[Port("tcp", SERVER, 9000)],
    )
    assert lab.ask(one, "10.231.1.1", 9000) == "two"


def test_without_masquerade_containers_keep_their_address(lab: Lab, bridge: Bridge) -> None:
    one, _ = lab.two(bridge, named(enable_ip_masquerade="false"))
    other = lab.other_host()
    lab.serve(other, SERVER)
    assert lab.ask(one, lab.OTHER, SERVER) == "10.231.1.2"


def test_host_binding_is_where_ports_are_published(lab: Lab, bridge: Bridge) -> None:
    wanted = named(host_binding_ipv4="127.0.0.1")
    one, _ = lab.two(bridge, wanted)
    lab.other_host()
    lab.serve(one, SERVER, "one")
    bridge.publish(network=wanted, endpoint=endpoint(1, 2), ports=[Port("tcp", SERVER, 9000)])
    assert lab.ask(None, "127.0.0.1", 9000) == "one"
    assert lab.unreachable(None, lab.HOST, 9000)


def test_a_bridge_of_the_admin_is_used_and_left(lab: Lab, bridge: Bridge) -> None:
    ip("link add ldtadmin type bridge")
    wanted = named(name="ldtadmin")
    one, two = lab.two(bridge, wanted)
    lab.serve(two, SERVER, "two")
    assert lab.ask(one, "10.231.1.3", SERVER) == "two"
    for host, netns in ((2, one), (3, two)):
        bridge.detach(network=wanted, endpoint=endpoint(1, host), netns=netns)
    bridge.remove(network=wanted)
    assert lab.interfaces() == ["ldtadmin", "lo"]


def test_an_interface_that_is_no_bridge_is_a_conflict(lab: Lab, bridge: Bridge) -> None:
    ip("link add ldtdummy type veth peer name ldtother")
    with pytest.raises(Conflict, match="ldtdummy"):
        bridge.create(network=named(name="ldtdummy"))


def test_two_daemons_side_by_side(lab: Lab, bridge: Bridge) -> None:
    second = make(lab, "second")
    one, _ = lab.two(bridge, network(1))
    with pytest.raises(Conflict, match="lading"):
        second.create(network=Network("1" * 64, "net1", (Subnet("10.9.0.0/24", "10.9.0.1"),)))
    far, _ = lab.two(second, network(2))
    lab.serve(one, SERVER, "one")
    bridge.publish(network=network(1), endpoint=endpoint(1, 2), ports=[Port("tcp", SERVER, 9000)])
    assert lab.unreachable(far, "10.231.1.2", SERVER)
    assert lab.ask(far, "10.231.2.1", 9000) == "one"
    before = lab.interfaces()
    # The second daemon starts again and knows of nothing: the first one's things stay.
    make(lab, "second").recover(networks=[], endpoints={}, published={})
    assert [n for n in before if n not in lab.interfaces() and n.startswith("br-1")] == []
    assert f"br-{'2' * 12}" not in lab.interfaces()
    assert lab.ask(None, "127.0.0.1", 9000) == "one"


def test_tables_go_with_the_last_network(lab: Lab, bridge: Bridge) -> None:
    if bridge.probe().details["Firewall"] != "nftables":
        pytest.skip("this host has no nftables")
    bridge.create(network=network(1))
    bridge.create(network=network(2, ipv6=True))
    assert "table ip lading_" in tables()
    assert "table ip6 lading_" in tables()
    bridge.remove(network=network(1))
    bridge.remove(network=network(2, ipv6=True))
    assert tables() == ""


def test_containers_do_not_reach_the_loopback_of_the_host(lab: Lab, bridge: Bridge) -> None:
    """route_localnet opens 127/8 on the bridge; the rules close it for containers."""
    one, _ = lab.two(bridge, network(1))
    lab.serve(None, SERVER, "host", address="127.0.0.1")
    with lab.inside(one):
        ip("addr del 127.0.0.1/8 dev lo")
        ip("route add 127.0.0.0/8 via 10.231.1.1 src 10.231.1.2")
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    assert lab.unreachable(one, "127.0.0.1", SERVER)


def test_the_firewall_of_the_configuration(lab: Lab) -> None:
    none = make(lab, "none", firewall="none")
    one, two = lab.two(none, network(1))
    lab.serve(two, SERVER, "two")
    assert lab.ask(one, "10.231.1.3", SERVER) == "two"
    assert none.probe().warnings
    wrong = make(lab, "wrong", firewall="ipfw").probe()
    assert not wrong.usable
    assert "ipfw" in wrong.reason
    assert "nftables" in wrong.remedy


def test_a_network_that_nobody_made(lab: Lab, bridge: Bridge) -> None:
    with pytest.raises(NotFound, match="net1"):
        bridge.attach(network=network(1), endpoint=endpoint(1, 2), netns=lab.namespace("a"))


def test_a_client_of_datagrams_reaches_the_next_container(lab: Lab, bridge: Bridge) -> None:
    one, two = lab.two(bridge, network(1))
    other = lab.other_host()
    ports = [Port("udp", SERVER, 9000)]
    with lab.inside(other):
        client = socket.socket(type=socket.SOCK_DGRAM)
    with client:
        client.settimeout(5)
        client.connect((lab.HOST, 9000))
        for host, netns in ((2, one), (3, two)):
            lab.serve(netns, SERVER, f"c{host}", kind=socket.SOCK_DGRAM)
            bridge.publish(network=network(1), endpoint=endpoint(1, host), ports=ports)
            client.send(b"?")
            assert client.recv(64) == f"c{host}".encode()
            bridge.unpublish(network=network(1), endpoint=endpoint(1, host))


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_policy_to_drop_does_not_stop_containers(lab: Lab, firewall: str) -> None:
    """As dockerd sets it, for one, when it is started on the same host."""
    programs, reason = iptables.usable()
    if not programs:
        pytest.skip(f"iptables: {reason}")

    def rules(*arguments: str) -> str:
        done = subprocess.run([programs[4], *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    rules("-P", "FORWARD", "DROP")
    before = rules("-S")
    bridge = make(lab, "data", firewall=firewall)
    one, two = lab.two(bridge, network(1))
    other = lab.other_host()
    lab.serve(other, SERVER)
    lab.serve(two, SERVER, "two")
    assert lab.ask(one, lab.OTHER, SERVER) == lab.HOST
    assert lab.ask(one, "10.231.1.3", SERVER) == "two"
    assert lab.unreachable(other, "10.231.1.3", SERVER)
    again = make(lab, "data", firewall=firewall)
    again.recover(networks=[network(1)], endpoints={}, published={})
    again.remove(network=network(1))
    assert rules("-S") == before


def test_many_ports_at_once(lab: Lab, bridge: Bridge) -> None:
    one, _ = lab.two(bridge, network(1))
    lab.serve(one, SERVER, "one")
    ports = [Port("tcp", SERVER, 10000 + n) for n in range(1000)]
    bridge.publish(network=network(1), endpoint=endpoint(1, 2), ports=ports)
    assert lab.ask(None, "127.0.0.1", 10999) == "one"
    bridge.unpublish(network=network(1), endpoint=endpoint(1, 2))
    assert lab.unreachable(None, "127.0.0.1", 10999)
