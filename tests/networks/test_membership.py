"""Which networks a container joins."""

from __future__ import annotations

import pytest

from lading.errors import Invalid
from lading.model.docker import EndpointSettings, NetworkingConfig
from lading.networks import membership
from lading.networks.membership import wanted

FIXED = EndpointSettings(mac_address="02:00:00:00:00:01")


@pytest.mark.parametrize(
    ("mode", "asked", "found"),
    [
        ("", {}, ["bridge"]),
        ("default", {}, ["bridge"]),
        ("host", {}, ["host"]),
        ("front", {}, ["front"]),
        ("front", {"front": FIXED}, ["front"]),
        ("front", {"a": FIXED, "front": FIXED}, ["front", "a"]),
        ("default", {"default": FIXED}, ["bridge"]),
        ("default", {"front": FIXED}, ["front"]),
        ("container:x", {}, []),
        ("ns:/run/netns/x", {}, []),
    ],
)
def test_networks_of_a_container(
    mode: str, asked: dict[str, EndpointSettings], found: list[str]
) -> None:
    assert list(wanted(mode, NetworkingConfig(asked))) == found


def test_hardware_address_of_the_container_is_that_of_its_first_network() -> None:
    found = wanted("front", NetworkingConfig({"back": EndpointSettings()}), "")
    assert list(found) == ["back"]
    found = wanted("default", NetworkingConfig(), "02-AA-00-00-00-01")
    assert found["bridge"].mac_address == "02:aa:00:00:00:01"


@pytest.mark.parametrize("mac", ["x", "02:00:00:00:00", "03:00:00:00:00:01"])
def test_wrong_hardware_addresses_are_named(mac: str) -> None:
    with pytest.raises(Invalid, match=mac):
        membership.normal_mac(mac)


def test_hardware_address_follows_the_address() -> None:
    assert membership.mac_for("172.17.0.2") == "02:42:ac:11:00:02"
