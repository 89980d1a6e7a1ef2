"""Choosing ranges: default pools, the host's routes, what a user names."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_network
from pathlib import Path

import pytest

from lading.config import AddressPool
from lading.errors import Conflict, Invalid
from lading.model.docker_networks import IPAMConfig
from lading.networks import subnets

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_first_free_default_pool() -> None:
    assert subnets.choose((), ()) == ip_network("172.17.0.0/16")
    taken = [ip_network("172.17.0.0/16"), ip_network("172.18.5.0/24")]
    assert subnets.choose((), taken) == ip_network("172.19.0.0/16")


def test_after_the_large_ranges_come_small_ones() -> None:
    taken = [ip_network("172.16.0.0/12")]
    assert subnets.choose((), taken) == ip_network("192.168.0.0/20")


def test_configured_pools_and_their_end() -> None:
    pools = [AddressPool("10.5.0.0/16", 17)]
    assert subnets.choose(pools, ()) == ip_network("10.5.0.0/17")
    with pytest.raises(Conflict, match="non-overlapping"):
        subnets.choose(pools, [ip_network("10.5.0.0/16")])


def test_a_pool_that_makes_no_sense() -> None:
    with pytest.raises(Invalid, match="size 8"):
        subnets.choose([AddressPool("10.5.0.0/16", 8)], ())


def test_routes_and_name_servers_are_avoided(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTES)
    (tmp_path / "resolv.conf").write_text("nameserver 172.18.0.53\nsearch example.test\n")
    found = subnets.host_ranges(tmp_path / "route", tmp_path / "resolv.conf")
    assert found == [ip_network("172.17.0.0/16"), ip_network("172.18.0.53/32")]
    assert subnets.choose((), found) == ip_network("172.19.0.0/16")


def test_a_host_without_these_files_has_no_ranges(tmp_path: Path) -> None:
    assert subnets.host_ranges(tmp_path / "a", tmp_path / "b") == []


@pytest.mark.parametrize(
    ("config", "gateway"),
    [
        (IPAMConfig(subnet="10.1.0.0/16"), "10.1.0.1"),
        (IPAMConfig(subnet="10.1.0.0/16", gateway="10.1.9.9"), "10.1.9.9"),
        (IPAMConfig(subnet="10.1.0.0/16", ip_range="10.1.4.0/24"), "10.1.4.0"),
        (IPAMConfig(subnet="fd00:1::/64"), "fd00:1::1"),
    ],
)
def test_gateway_is_filled_in(config: IPAMConfig, gateway: str) -> None:
    assert subnets.check(config).gateway == gateway


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (IPAMConfig(subnet="10.1.0.1/16"), "host bits"),
        (IPAMConfig(subnet="ten"), "ten"),
        (IPAMConfig(subnet="10.1.0.1/32"), "no room"),
        (IPAMConfig(subnet="10.1.0.0/16", gateway="10.2.0.1"), "10.2.0.1"),
        (IPAMConfig(subnet="10.1.0.0/16", ip_range="10.2.0.0/24"), "10.2.0.0/24"),
        (IPAMConfig(subnet="10.1.0.0/16", auxiliary_addresses={"r": "x"}), '"x"'),
    ],
)
def test_wrong_ranges_are_named(config: IPAMConfig, word: str) -> None:
    with pytest.raises(Invalid, match=word):
        subnets.check(config)


def test_local_ipv6_is_unique_local_and_stable() -> None:
    one, two = subnets.local_ipv6("a" * 64), subnets.local_ipv6("b" * 64)
    assert one == subnets.local_ipv6("a" * 64)
    assert one != two
    assert one.prefixlen == 64
    assert one.subnet_of(IPv6Network("fd00::/8"))
