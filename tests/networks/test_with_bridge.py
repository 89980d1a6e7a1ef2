"""The network core on real bridges, in a network namespace that plays the host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord
from tests.networks.conftest import Open, container

from lading.config import Settings
from lading.model.docker import EndpointSettings, PortBinding
from lading.model.docker_networks import NetworkCreate
from lading.networks import Networks, Sandbox
from lading.testing.network_lab import Lab
from lading.testing.waiting import until

pytestmark = pytest.mark.root


@pytest.fixture
def settings() -> Settings:
    return Settings(bridge="ldtcore0", bip="10.233.0.1/24", network_pool_size=4)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    with Lab(tmp_path / "lab") as lab:
        yield lab


@pytest.fixture
def networks(lab: Lab, open_networks: Open) -> Networks:
    return open_networks(real=True)


def path(sandbox: Sandbox) -> str:
    assert sandbox.netns_path is not None
    return sandbox.netns_path


def wait_for_pool(networks: Networks) -> None:
    until(lambda: len(networks._pool) == 4)


def lookup(lab: Lab, asker: Sandbox, name: str) -> DNSRecord:
    server = asker.resolv_conf.split()[1]
    with lab.inside(path(asker)):
        client = socket.socket(type=socket.SOCK_DGRAM)
    with client:
        client.settimeout(60)
        client.sendto(DNSRecord.question(name).pack(), (server, 53))
        return DNSRecord.parse(client.recv(512))


def test_a_ready_sandbox_is_like_one_made_to_measure(networks: Networks, lab: Lab) -> None:
    wait_for_pool(networks)
    ready = networks.allocate(container("web"))
    measured = networks.allocate(
        container("db", endpoints={"bridge": EndpointSettings(mac_address="02:00:00:00:00:07")})
    )
    for sandbox in (ready, measured):
        (endpoint,) = sandbox.endpoints
        seen = lab.interface(path(sandbox), "eth0")
        assert (seen.up, seen.address, seen.mac) == (True, endpoint.ip, endpoint.mac)
        assert lab.default_gateway(path(sandbox)) == "10.233.0.1"
    lab.serve(path(ready), 80, "web")
    assert lab.ask(path(measured), ready.endpoints[0].ip, 80) == "web"


def test_more_containers_than_ready_sandboxes(networks: Networks) -> None:
    wait_for_pool(networks)
    made = [networks.allocate(container(f"c{n}")) for n in range(10)]
    assert len({s.endpoints[0].ip for s in made}) == 10
    assert len({s.netns_path for s in made}) == 10


def test_published_through_a_ready_sandbox(networks: Networks, lab: Lab) -> None:
    wait_for_pool(networks)
    web = container("web", port_bindings={"80/tcp": [PortBinding()]})
    sandbox = networks.allocate(web)
    lab.serve(path(sandbox), 80, "web")
    number = sandbox.ports[0].host_port
    assert lab.ask(None, "127.0.0.1", number) == "web"
    networks.release(web.id)
    assert lab.unreachable(None, "127.0.0.1", number)


def test_names_on_a_network(networks: Networks, lab: Lab) -> None:
    networks.create(NetworkCreate(name="front"))
    web = networks.allocate(container("web", "front"))
    db = networks.allocate(
        container("db", "front", endpoints={"front": EndpointSettings(aliases=["sql"])})
    )
    outsider = container("outsider")
    networks.allocate(outsider)
    for name in ("db", "sql", "db.front", container("db").id[:12]):
        assert str(lookup(lab, web, name).short()) == db.endpoints[0].ip
    assert lookup(lab, web, "outsider").header.rcode != RCODE.NOERROR
    connected = networks.connect("front", outsider, EndpointSettings())
    assert connected is not None
    assert str(lookup(lab, web, "outsider").short()) == connected.endpoints[1].ip
    assert str(lookup(lab, connected, "web").short()) == web.endpoints[0].ip


def test_nothing_is_left_when_the_last_container_has_gone(
    networks: Networks, lab: Lab, tmp_path: Path
) -> None:
    networks.create(NetworkCreate(name="front"))
    web = container("web", "front")
    networks.allocate(web)
    networks.release(web.id)
    networks.close()
    assert lab.interfaces() == ["lo"]
    assert list((tmp_path / "netns").iterdir()) == []


def test_a_killed_daemon_is_followed_by_one_that_knows(
    networks: Networks, open_networks: Open, lab: Lab
) -> None:
    networks.create(NetworkCreate(name="front"))
    bindings = {"80/tcp": [PortBinding()]}
    sandbox = networks.allocate(container("web", "front", port_bindings=bindings))
    lab.serve(path(sandbox), 80, "web")
    wait_for_pool(networks)
    before = set(lab.interfaces())
    # As if killed: nothing of it is told to stop, its name server has gone all the same.
    networks._dns.close()
    again = open_networks(real=True)
    assert lab.ask(None, "127.0.0.1", sandbox.ports[0].host_port) == "web"
    assert str(lookup(lab, sandbox, "web").short()) == sandbox.endpoints[0].ip
    wait_for_pool(again)
    # Its own ready ones in place of the other's, nothing more.
    assert len(lab.interfaces()) == len(before)
    again.release(container("web").id)
    assert lab.unreachable(None, "127.0.0.1", sandbox.ports[0].host_port)
