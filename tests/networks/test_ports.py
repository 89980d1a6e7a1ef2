"""Published ports: reading them, choosing host ports, keeping them."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from lading.errors import Conflict, Invalid
from lading.model.docker import Empty, PortBinding
from lading.monitor.relay import unpack
from lading.networks.endpoints import for_backend
from lading.networks.ports import HostPorts, Wanted, exposed, wanted
from lading.networks.records import PublishedPort


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    made = HostPorts()
    yield made
    made.release("c", ())
    made.release("d", ())


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that a process of the host listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def test_exposed_ports_and_ranges() -> None:
    asked = {"80/tcp": Empty(), "53/udp": Empty(), "90-91": Empty()}
    assert exposed(asked) == [(80, "tcp"), (90, "tcp"), (91, "tcp"), (53, "udp")]


@pytest.mark.parametrize("key", ["eighty/tcp", "70000", "5-4", "80/icmp", "", "-1"])
def test_wrong_ports_are_named(key: str) -> None:
    with pytest.raises(Invalid):
        exposed({key: Empty()})


def test_bindings_as_docker_sends_them() -> None:
    bindings = {
        "80/tcp": [PortBinding(host_port="8080"), PortBinding("127.0.0.1", "8081")],
        "53/udp": [PortBinding("::1", "5000-5002")],
        "81": [PortBinding()],
    }
    assert wanted(bindings, default_ip="10.0.0.1") == [
        Wanted(80, "tcp", "10.0.0.1", 8080, 8080),
        Wanted(80, "tcp", "127.0.0.1", 8081, 8081),
        Wanted(53, "udp", "::1", 5000, 5002),
        Wanted(81, "tcp", "10.0.0.1", 0, 0),
    ]


def test_publish_all_adds_the_exposed_that_are_not_named() -> None:
    bindings = {"80/tcp": [PortBinding(host_port="8080")]}
    found = wanted(bindings, {"80/tcp": Empty(), "90/udp": Empty()})
    assert found == [Wanted(80, "tcp", "", 8080, 8080), Wanted(90, "udp", "", 0, 0)]


@pytest.mark.parametrize("binding", [PortBinding("x", "80"), PortBinding("", "http")])
def test_wrong_bindings_are_named(binding: PortBinding) -> None:
    with pytest.raises(Invalid, match=r'"(x|http)"'):
        wanted({"80/tcp": [binding]})


def test_a_port_is_kept_from_everybody(ports: HostPorts) -> None:
    number = free()
    kept = ports.reserve("c", [Wanted(80, "tcp", "", number, number)], ipv6=False)
    assert kept == (PublishedPort(80, "tcp", "0.0.0.0", number),)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", number))
    with pytest.raises(Conflict, match=rf"0\.0\.0\.0:{number} failed: port is already allocated"):
        ports.reserve("d", [Wanted(80, "tcp", "", number, number)], ipv6=False)
    assert len(ports.held("c")) == 1
    ports.release("c", kept)
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))


def test_a_port_that_a_process_listens_on_is_taken(ports: HostPorts, busy: int) -> None:
    for ip in ("", "127.0.0.1"):
        with pytest.raises(Conflict, match=str(busy)):
            ports.reserve("c", [Wanted(80, "tcp", ip, busy, busy)], ipv6=False)


def test_all_or_none(ports: HostPorts, busy: int) -> None:
    number = free()
    both = [Wanted(80, "tcp", "", number, number), Wanted(81, "tcp", "", busy, busy)]
    with pytest.raises(Conflict):
        ports.reserve("c", both, ipv6=False)
    assert ports.held("c") == {}
    with socket.socket() as other:
        other.bind(("", number))


def test_many_ports_take_one_descriptor(ports: HostPorts) -> None:
    asked = [Wanted(n, "tcp", "127.0.0.1", 0, 0) for n in range(1, 1001)]
    kept = ports.reserve("c", asked, ipv6=False)
    assert len(ports.held("c")) == 1
    # Handed over and given up here, as between a daemon that ends and a monitor.
    handed = os.dup(ports.held("c")["hold-ports"])
    ports.release("c", kept)
    for port in (kept[0], kept[-1]):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port.host_port))
    os.close(handed)
    with socket.socket() as other:
        other.bind(("127.0.0.1", kept[0].host_port))


def test_a_range_gives_the_first_that_is_free(ports: HostPorts, busy: int) -> None:
    one = [Wanted(80, "tcp", "127.0.0.1", busy, busy + 20)]
    (kept,) = ports.reserve("c", one, ipv6=False)
    assert busy < kept.host_port <= busy + 20


def test_any_port_is_one_of_the_ephemeral(ports: HostPorts) -> None:
    asked = [Wanted(80, "tcp", "", 0, 0), Wanted(81, "tcp", "", 0, 0)]
    kept = ports.reserve("c", asked, ipv6=True)
    assert [p.host_ip for p in kept] == ["0.0.0.0", "::", "0.0.0.0", "::"]
    numbers = {p.host_port for p in kept}
    assert len(numbers) == 2
    assert all(1024 < number < 65536 for number in numbers)


def test_tcp_and_udp_of_a_number_are_two_ports(ports: HostPorts) -> None:
    number = free()
    for protocol in ("tcp", "udp"):
        ports.reserve("c", [Wanted(80, protocol, "", number, number)], ipv6=False)


def test_one_number_on_two_addresses(ports: HostPorts) -> None:
    number = free()
    ports.reserve("c", [Wanted(80, "tcp", "127.0.0.1", number, number)], ipv6=False)
    ports.reserve("d", [Wanted(80, "tcp", "127.0.0.2", number, number)], ipv6=False)


def test_an_address_of_another_host(ports: HostPorts) -> None:
    with pytest.raises(Invalid, match="none of this host's"):
        ports.reserve("c", [Wanted(80, "tcp", "192.0.2.99", 8080, 8080)], ipv6=False)


def test_what_no_rule_can_lead_is_listened_for(ports: HostPorts) -> None:
    number = free()
    asked = [
        Wanted(80, "tcp", "", number, number),
        Wanted(81, "tcp", "127.0.0.1", 0, 0),
        Wanted(82, "udp", "::1", 0, 0),
    ]
    kept = ports.reserve("c", asked, ipv6=False, relay_to="192.0.2.7")
    assert [p.host_ip for p in kept] == ["0.0.0.0", "::", "127.0.0.1", "::1"]
    held = ports.held("c")
    with socket.socket(fileno=os.dup(held["relayed"])) as queue:
        for _ in range(2):  # whoever looks leaves them there
            found = list(unpack(queue))
            assert [(to, port) for _, to, port in found] == [("192.0.2.7", 80), ("192.0.2.7", 82)]
            for one, _, _ in found:
                one.close()
    assert select.select([held["relay"]], [], [], 0)[0] == []
    with socket.create_connection(("::1", number), 5), socket.socket() as other:
        assert select.select([held["relay"]], [], [], 5)[0] == [held["relay"]]
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number))
    ports.release("c", kept)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", number), 5)


def test_many_relayed_ports(ports: HostPorts) -> None:
    asked = [Wanted(n, "udp", "::1", 0, 0) for n in range(1, 1001)]
    ports.reserve("c", asked, ipv6=False, relay_to="192.0.2.7")
    with socket.socket(fileno=os.dup(ports.held("c")["relayed"])) as queue:
        found = list(unpack(queue))
    assert [port for _, _, port in found] == list(range(1, 1001))
    for one, _, _ in found:
        one.close()


def test_ports_of_an_earlier_daemon_are_known(ports: HostPorts) -> None:
    ports.adopt([PublishedPort(80, "tcp", "0.0.0.0", 45678)])
    with pytest.raises(Conflict, match="45678"):
        ports.reserve("c", [Wanted(80, "tcp", "", 45678, 45678)], ipv6=False)


def test_what_backends_get() -> None:
    shown = [
        PublishedPort(80, "tcp", "0.0.0.0", 8080),
        PublishedPort(80, "tcp", "::", 8080),
        PublishedPort(81, "tcp", "0.0.0.0", 8081),
        PublishedPort(82, "udp", "127.0.0.1", 8082),
    ]
    found = [(p.container_port, p.host_ip) for p in for_backend(shown)]
    assert found == [(80, ""), (81, "0.0.0.0"), (82, "127.0.0.1")]
