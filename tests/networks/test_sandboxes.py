"""Sandboxes: what a container gets, and that it is given back."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from tests.networks.conftest import Open, Remembering, container

from lading.config import Settings
from lading.errors import Conflict, Denied, Invalid, NotFound
from lading.model.docker import EndpointIPAMConfig, EndpointSettings, PortBinding
from lading.model.docker_networks import IPAM, IPAMConfig, NetworkCreate
from lading.networks import Link, Networks, PublishedPort

pytestmark = pytest.mark.root


@pytest.fixture
def front(networks: Networks) -> str:
    subnet = IPAMConfig(subnet="10.234.0.0/24")
    return networks.create(NetworkCreate(name="front", ipam=IPAM(config=[subnet]))).id


def fixed(ip: str = "", mac: str = "", **more: object) -> EndpointSettings:
    ipam = EndpointIPAMConfig(ipv4_address=ip) if ip else None
    return EndpointSettings(ipam_config=ipam, mac_address=mac, **more)  # type: ignore[arg-type]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def leftovers(networks: Networks, backend: Remembering) -> object:
    networks._releases.drain()
    return backend.endpoints, backend.published, networks._parts.namespaces.names()


NOTHING: object = ({}, {}, [])


def test_a_container_on_the_default_bridge(networks: Networks, backend: Remembering) -> None:
    web = container("web")
    sandbox = networks.allocate(web)
    (endpoint,) = sandbox.endpoints
    assert (endpoint.ip, endpoint.prefix, endpoint.gateway) == ("10.233.0.2", 24, "10.233.0.1")
    assert (endpoint.ifname, endpoint.mac) == ("eth0", "02:42:0a:e9:00:02")
    assert endpoint.default_route
    assert backend.endpoints[endpoint.id].addresses == ("10.233.0.2/24",)
    assert sandbox.netns_path is not None
    assert os.stat(sandbox.netns_path).st_ino != os.stat("/proc/self/ns/net").st_ino
    assert sandbox.hosts.endswith("10.233.0.2\tweb\n")
    networks.release(web.id)
    networks.release(web.id)
    assert leftovers(networks, backend) == NOTHING


def test_host_mode(networks: Networks) -> None:
    sandbox = networks.allocate(container("web", "host"))
    assert sandbox.netns_path is None
    assert [e.network_name for e in sandbox.endpoints] == ["host"]
    (member,) = networks.members(networks.get("host").id)
    assert member.ipv4 == ""


def test_none_mode(networks: Networks, backend: Remembering) -> None:
    sandbox = networks.allocate(container("web", "none"))
    assert sandbox.netns_path is not None
    assert backend.endpoints == {}
    assert "web" not in sandbox.hosts


def test_a_namespace_that_is_shared(networks: Networks) -> None:
    web, side = container("web"), container("side", "container:web")
    with pytest.raises(Conflict, match="non running"):
        networks.allocate(side, joined=web.id)
    one = networks.allocate(web)
    two = networks.allocate(side, joined=web.id)
    assert two.netns_path == one.netns_path
    assert two.hosts == two.resolv_conf == ""
    assert networks.of(side).endpoints == ()
    networks.release(side.id)
    assert os.path.exists(one.netns_path or "")


def test_a_namespace_of_somebody_else(networks: Networks) -> None:
    path = "/proc/self/ns/net"
    assert networks.allocate(container("web", f"ns:{path}")).netns_path == path


def test_a_missing_network(networks: Networks, backend: Remembering) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        networks.allocate(container("web", "nowhere"))
    networks.check("nowhere", container("web").networking)
    assert leftovers(networks, backend) == NOTHING


def test_several_networks(networks: Networks, front: str) -> None:
    endpoints = {"bridge": EndpointSettings(), "front": fixed(gw_priority=1)}
    sandbox = networks.allocate(container("web", "bridge", endpoints=endpoints))
    shown = [(e.network_name, e.ifname, e.default_route) for e in sandbox.endpoints]
    assert shown == [("bridge", "eth0", False), ("front", "eth1", True)]


def test_fixed_address_and_mac(networks: Networks, front: str, backend: Remembering) -> None:
    settings = {"front": fixed("10.234.0.77", "02:00:00:00:00:01")}
    web = container("web", "front", endpoints=settings)
    (endpoint,) = networks.allocate(web).endpoints
    assert (endpoint.ip, endpoint.mac) == ("10.234.0.77", "02:00:00:00:00:01")
    with pytest.raises(Conflict, match=r"10\.234\.0\.77"):
        networks.allocate(container("other", "front", endpoints=settings))
    # Given back and asked for again at once, as a restart does.
    networks.release(web.id)
    networks.allocate(web)


@pytest.mark.parametrize(
    ("mode", "wish"),
    [
        ("bridge", fixed("10.233.0.9")),
        ("bridge", fixed(aliases=["a"])),
        ("front", fixed("10.99.0.9")),
        ("front", fixed(mac="x")),
    ],
)
def test_wishes_that_cannot_be_met(
    networks: Networks, front: str, backend: Remembering, mode: str, wish: EndpointSettings
) -> None:
    with pytest.raises(Invalid):
        networks.allocate(container("web", mode, endpoints={mode: wish}))
    assert leftovers(networks, backend) == NOTHING


def test_published_ports(networks: Networks, backend: Remembering) -> None:
    number = free()
    bindings = {"80/tcp": [PortBinding(host_port=str(number))]}
    web = container("web", port_bindings=bindings)
    sandbox = networks.allocate(web)
    assert sandbox.ports == (PublishedPort(80, "tcp", "0.0.0.0", number),)
    assert len(sandbox.held) == 1
    assert [p.host_port for ports in backend.published.values() for p in ports] == [number]
    with pytest.raises(Conflict, match=str(number)):
        networks.allocate(container("other", port_bindings=bindings))
    networks.release(web.id)
    networks.allocate(container("other", port_bindings=bindings))


@pytest.mark.parametrize("refused", ["attach", "publish"])
def test_a_failure_of_the_backend_leaves_nothing(
    networks: Networks, backend: Remembering, refused: str
) -> None:
    number = free()
    web = container("web", port_bindings={"80/tcp": [PortBinding(host_port=str(number))]})
    backend.refuses = refused
    with pytest.raises(Conflict, match="refused"):
        networks.allocate(web)
    assert leftovers(networks, backend) == NOTHING
    assert networks.of(web).sandbox_id == ""
    backend.refuses = ""
    assert networks.allocate(web).endpoints[0].ip


def test_a_deferred_sandbox(networks: Networks, backend: Remembering) -> None:
    web = container("web", port_bindings={"80/tcp": [PortBinding()]})
    sandbox = networks.allocate(web, remapped=True)
    assert sandbox.deferred
    assert sandbox.netns_path is None
    assert backend.endpoints == {}
    networks.attach(web.id, "/proc/self/ns/net")
    assert len(backend.endpoints) == len(backend.published) == 1
    with pytest.raises(Conflict):
        networks.attach(web.id, "/proc/self/ns/net")


def test_what_inspect_shows(networks: Networks, front: str) -> None:
    ports: dict[str, Any] = {"exposed_ports": {"80/tcp": {}, "90/udp": {}}}
    web = container(
        "web",
        "front",
        config=ports,
        endpoints={"front": fixed(aliases=["www"])},
        port_bindings={"80/tcp": [PortBinding("127.0.0.1", "")]},
    )
    (place,) = networks.of(web).endpoints
    assert (place.network_id, place.network_name, place.ip) == (front, "front", "")
    assert place.dns_names == ("web", "www", web.id[:12])
    sandbox = networks.allocate(web)
    shown = networks.of(web)
    assert shown.endpoints == sandbox.endpoints
    assert shown.sandbox_key == sandbox.netns_path
    assert len(shown.sandbox_id) == 64
    assert shown.ports == (*sandbox.ports, PublishedPort(90, "udp"))
    (member,) = networks.members(front)
    assert (member.container, member.name, member.ipv4) == (web.id, "web", "10.234.0.2/24")


def test_links(networks: Networks) -> None:
    db, web = container("db", config={"env": ["A=b"]}), container("web")
    link = Link(db.id, "db", "sql", db.config)
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/sql"):
        networks.allocate(web, links=[link])
    address = networks.allocate(db).endpoints[0].ip
    sandbox = networks.allocate(web, links=[link])
    assert f"{address}\tsql db {db.id[:12]}\n" in sandbox.hosts
    assert sandbox.environment == ["SQL_NAME=/web/sql", "SQL_ENV_A=b"]


def test_files(networks: Networks) -> None:
    web = container(
        "web",
        extra_hosts=["far:10.9.8.7", "me:host-gateway"],
        dns=["10.1.1.1"],
        dns_search=["example.test"],
        dns_options=["ndots:3"],
        config={"domainname": "example.test"},
    )
    sandbox = networks.allocate(web)
    assert "10.9.8.7\tfar\n10.233.0.1\tme\n" in sandbox.hosts
    assert sandbox.hosts.endswith("10.233.0.2\tweb.example.test web\n")
    assert sandbox.resolv_conf == ("nameserver 10.1.1.1\nsearch example.test\noptions ndots:3\n")


# Joining and leaving


def test_connect_and_disconnect_while_it_runs(
    networks: Networks, front: str, backend: Remembering
) -> None:
    web = container("web")
    networks.allocate(web)
    sandbox = networks.connect("front", web, fixed("10.234.0.9"))
    assert sandbox is not None
    assert [(e.ifname, e.ip) for e in sandbox.endpoints] == [
        ("eth0", "10.233.0.2"),
        ("eth1", "10.234.0.9"),
    ]
    assert "10.234.0.9\tweb\n" in sandbox.hosts
    with pytest.raises(Denied, match="already exists in network front"):
        networks.connect("front", web, EndpointSettings())
    sandbox = networks.disconnect("bridge", web)
    assert sandbox is not None
    (endpoint,) = sandbox.endpoints
    assert endpoint.default_route
    assert [e.default_route for e in backend.endpoints.values()] == [True]
    with pytest.raises(NotFound, match="is not connected"):
        networks.disconnect("bridge", web)
    networks.release(web.id)
    assert leftovers(networks, backend) == NOTHING


def test_connect_and_disconnect_while_it_does_not_run(
    networks: Networks, front: str, backend: Remembering
) -> None:
    web = container("web")
    assert networks.connect("front", web, EndpointSettings()) is None
    assert [e.network_name for e in networks.of(web).endpoints] == ["bridge", "front"]
    assert networks.disconnect("bridge", web) is None
    sandbox = networks.allocate(web)
    assert [(e.network_name, e.ifname) for e in sandbox.endpoints] == [("front", "eth0")]
    networks.forget(web.id)
    assert [e.network_name for e in networks.of(web).endpoints] == ["bridge"]


def test_published_ports_move_with_the_default_route(
    networks: Networks, front: str, backend: Remembering
) -> None:
    web = container("web", port_bindings={"80/tcp": [PortBinding()]})
    networks.allocate(web)
    networks.connect("front", web, EndpointSettings())
    networks.disconnect("bridge", web)
    (endpoint,) = networks.of(web).endpoints
    assert list(backend.published) == [endpoint.id]


@pytest.mark.parametrize("mode", ["host", "none"])
def test_modes_that_cannot_be_connected(networks: Networks, front: str, mode: str) -> None:
    with pytest.raises(Denied):
        networks.connect("front", container("web", mode), EndpointSettings())
    with pytest.raises(Denied):
        networks.connect(mode, container("other"), EndpointSettings())
    with pytest.raises(Invalid, match="sharing network namespace"):
        networks.connect("front", container("side", "container:x"), EndpointSettings())


def test_a_failed_connect_changes_nothing(
    networks: Networks, front: str, backend: Remembering
) -> None:
    web = container("web")
    networks.allocate(web)
    backend.refuses = "attach"
    with pytest.raises(Conflict, match="refused"):
        networks.connect("front", web, fixed("10.234.0.9"))
    backend.refuses = ""
    assert len(networks.of(web).endpoints) == 1
    networks.connect("front", web, fixed("10.234.0.9"))


def test_renamed(networks: Networks, front: str) -> None:
    web = container("web", "front")
    networks.allocate(web)
    networks.rename(web.id, "new")
    assert networks.of(web).endpoints[0].dns_names[0] == "new"
    networks.rename("unknown", "x")


# A daemon that starts again


def test_what_runs_is_taken_up(open_networks: Open, backend: Remembering) -> None:
    first = open_networks()
    number = free()
    web = container("web", port_bindings={"80/tcp": [PortBinding(host_port=str(number))]})
    db = container("db")
    sandbox = first.allocate(web)
    first.allocate(db)
    again = open_networks()
    assert again.of(web).endpoints == sandbox.endpoints
    assert set(backend.endpoints) == {e.id for c in (web, db) for e in again.of(c).endpoints}
    assert [p.host_port for ports in backend.published.values() for p in ports] == [number]
    assert again.allocate(container("new")).endpoints[0].ip == "10.233.0.4"
    with pytest.raises(Conflict, match=str(number)):
        again.allocate(container("other", port_bindings=web.host_config.port_bindings))
    again.release(web.id)
    assert backend.published == {}


def test_what_ended_meanwhile_is_swept(open_networks: Open, backend: Remembering) -> None:
    first = open_networks()
    gone = first.allocate(container("gone"))
    first._parts.state.delete_sandbox(container("gone").id)
    again = open_networks()
    assert not os.path.exists(gone.netns_path or "")
    assert backend.endpoints == {}
    assert again.members(again.get("bridge").id) == []


def test_after_a_reboot_no_sandbox_is_left(open_networks: Open, backend: Remembering) -> None:
    first = open_networks()
    web = container("web")
    sandbox = first.allocate(web)
    first._parts.namespaces.remove(os.path.basename(sandbox.netns_path or ""))
    assert open_networks().of(web).sandbox_id == ""
    assert backend.endpoints == {}


def test_the_default_bridge_follows_the_configuration(
    open_networks: Open, backend: Remembering, settings: Settings
) -> None:
    first = open_networks().get("bridge")
    changed = Settings(bridge="ldtcore1", bip="10.235.0.1/24", network_pool_size=0)
    second = open_networks(settings=changed).get("bridge")
    assert second.id == first.id
    assert second.gateway() == "10.235.0.1"
    none = open_networks(settings=Settings(bridge="none"))
    assert [n.name for n in none.list()] == ["host", "none"]
