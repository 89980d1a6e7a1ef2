"""Networks as objects: made, found, listed, removed."""

from __future__ import annotations

import pytest
from tests.networks.conftest import Open, Remembering, container

from lading.errors import Conflict, Denied, InUse, Invalid, NotFound, Unsupported
from lading.model.docker import EndpointSettings
from lading.model.docker_networks import IPAM, ConfigReference, IPAMConfig, NetworkCreate
from lading.networks import Networks
from lading.store.events import Events

pytestmark = pytest.mark.root


def body(name: str, subnet: str = "", **more: object) -> NetworkCreate:
    ipam = IPAM(config=[IPAMConfig(subnet=subnet)]) if subnet else IPAM()
    return NetworkCreate(name=name, ipam=ipam, **more)  # type: ignore[arg-type]


def names(networks: Networks, **filters: list[str]) -> list[str]:
    return [network.name for network in networks.list(filters)]


def test_three_networks_are_always_there(networks: Networks, backend: Remembering) -> None:
    assert names(networks) == ["bridge", "host", "none"]
    bridge = networks.get("bridge")
    assert bridge.gateway() == "10.233.0.1"
    assert bridge.options["com.docker.network.bridge.name"] == "ldtcore0"
    assert list(backend.networks) == [bridge.id]
    for name in ("bridge", "host", "none"):
        with pytest.raises(Denied, match="pre-defined"):
            networks.remove(name)
        with pytest.raises(Denied, match="predefined"):
            networks.create(body(name))


def test_a_network_is_found_by_name_id_and_its_beginning(networks: Networks) -> None:
    made = networks.create(body("front")).id
    assert len(made) == 64
    for ref in ("front", made, made[:12]):
        assert networks.get(ref).id == made
    for ref in ("fron", "", "x" * 64):
        with pytest.raises(NotFound):
            networks.get(ref)


def test_a_name_is_taken_once(networks: Networks, backend: Remembering) -> None:
    networks.create(body("front"))
    with pytest.raises(Conflict, match="front already exists"):
        networks.create(body("front"))
    assert len(backend.networks) == 2


def test_ranges_are_chosen_apart(networks: Networks) -> None:
    first = networks.get(networks.create(body("a")).id)
    second = networks.get(networks.create(body("b")).id)
    assert first.ranges[0].subnet != second.ranges[0].subnet
    with pytest.raises(Conflict, match="overlaps"):
        networks.create(body("c", first.ranges[0].subnet))


def test_ipv6_gets_a_range_of_its_own(networks: Networks) -> None:
    made = networks.get(networks.create(body("six", enable_ipv6=True)).id)
    assert [r.subnet.count(":") > 0 for r in made.ranges] == [False, True]
    assert made.gateway(6).endswith("::1")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (body(""), Invalid),
        (body("a/b"), Invalid),
        (body("a", "10.0.0.1/8"), Invalid),
        (body("a", driver="host"), Denied),
        (body("a", driver="nothing"), NotFound),
        (body("a", ingress=True), Unsupported),
        (body("a", config_only=True), Unsupported),
        (body("a", config_from=ConfigReference("x")), Unsupported),
        (body("a", scope="swarm"), Unsupported),
        (NetworkCreate(name="a", ipam=IPAM(driver="dhcp")), Unsupported),
        (NetworkCreate(name="a", ipam=IPAM(config=[IPAMConfig(gateway="10.0.0.1")])), Invalid),
    ],
)
def test_what_cannot_be_made_leaves_nothing(
    networks: Networks, backend: Remembering, wrong: NetworkCreate, error: type[Exception]
) -> None:
    with pytest.raises(error):
        networks.create(wrong)
    assert names(networks) == ["bridge", "host", "none"]
    assert len(backend.networks) == 1


def test_a_failure_of_the_backend_leaves_nothing(networks: Networks, backend: Remembering) -> None:
    backend.refuses = "create"
    with pytest.raises(Conflict, match="refused"):
        networks.create(body("front", "10.77.0.0/16"))
    backend.refuses = ""
    networks.create(body("front", "10.77.0.0/16"))


def test_a_failed_removal_keeps_the_network(networks: Networks, backend: Remembering) -> None:
    networks.create(body("front"))
    backend.refuses = "remove"
    with pytest.raises(Conflict):
        networks.remove("front")
    backend.refuses = ""
    networks.allocate(container("web", "front"))


def test_a_network_in_use_is_not_removed(networks: Networks) -> None:
    networks.create(body("front"))
    web = container("web", "front")
    networks.allocate(web)
    with pytest.raises(InUse, match="has active endpoints"):
        networks.remove("front")
    networks.release(web.id)
    networks.remove("front")
    with pytest.raises(NotFound):
        networks.get("front")


def test_filters(networks: Networks) -> None:
    networks.create(body("front", labels={"tier": "web"}))
    networks.create(body("back"))
    networks.allocate(container("web", "front"))
    assert names(networks, driver=["host"]) == ["host"]
    assert names(networks, name=["ro", "ack"]) == ["back", "front"]
    assert names(networks, label=["tier=web"]) == names(networks, label=["tier"]) == ["front"]
    assert names(networks, type=["custom"]) == ["back", "front"]
    assert names(networks, type=["builtin"]) == ["bridge", "host", "none"]
    assert names(networks, dangling=["true"]) == ["back"]
    assert names(networks, scope=["global"]) == []
    assert names(networks, id=[networks.get("back").id[:9]]) == ["back"]
    for wrong in ({"colour": ["red"]}, {"type": ["x"]}, {"dangling": ["maybe"]}):
        with pytest.raises(Invalid):
            networks.list(wrong)


def test_prune(networks: Networks) -> None:
    for name in ("used", "kept", "stopped", "idle"):
        networks.create(body(name, labels={"keep": "1"} if name == "kept" else {}))
    networks.allocate(container("web", "used"))
    networks.connect("stopped", container("db"), EndpointSettings())
    assert networks.prune({"label": ["x"]}) == []
    assert networks.prune({"until": ["1h"]}) == []
    assert networks.prune({"label!": ["keep"]}) == ["idle"]
    assert names(networks, type=["custom"]) == ["kept", "stopped", "used"]
    with pytest.raises(Invalid):
        networks.prune({"name": ["x"]})


def test_events_tell_of_it(networks: Networks, events: Events) -> None:
    seen = events.subscribe(since=0)
    made = networks.create(body("front")).id
    web = container("web", "front")
    networks.allocate(web)
    networks.release(web.id)
    networks.remove("front")
    told = [seen.next(1) for _ in range(4)]
    assert [(e.action, e.actor_id) for e in told if e] == [
        (action, made) for action in ("create", "connect", "disconnect", "destroy")
    ]
    assert told[1] is not None
    assert told[1].attributes == {"container": web.id, "name": "front", "type": "bridge"}


def test_the_next_daemon_finds_them(open_networks: Open, backend: Remembering) -> None:
    made = open_networks().create(body("front", "10.77.0.0/16", labels={"a": "b"}))
    before = open_networks().get("front")
    assert before.id == made.id
    assert before.labels == {"a": "b"}
    assert set(backend.networks) >= {made.id}
