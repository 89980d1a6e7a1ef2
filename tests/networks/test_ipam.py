"""Addresses: in turn, fixed, exhausted, given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import Invalid
from lading.model.docker_networks import IPAMConfig
from lading.networks.ipam import Addresses, Exhausted, Range, Taken


def small(**changes: object) -> Range:
    config = {"subnet": "10.0.0.0/29", "gateway": "10.0.0.1", **changes}
    return Range(IPAMConfig(**config))  # type: ignore[arg-type]


def test_neither_network_nor_broadcast_nor_gateway() -> None:
    found = small()
    assert [found.take() for _ in range(5)] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/29"):
        found.take()


def test_what_is_given_back_is_used_last() -> None:
    found = small()
    first = found.take()
    found.give(first)
    assert [found.take() for _ in range(5)][-1] == first


def test_ip_range_and_auxiliary_addresses() -> None:
    found = small(ip_range="10.0.0.4/30", auxiliary_addresses={"router": "10.0.0.5"})
    assert [found.take(), found.take()] == ["10.0.0.4", "10.0.0.6"]
    assert found.take("10.0.0.2") == "10.0.0.2"


def test_fixed_addresses() -> None:
    found = small()
    assert found.take("10.0.0.3") == "10.0.0.3"
    for taken in ("10.0.0.3", "10.0.0.1", "10.0.0.7"):
        with pytest.raises(Taken, match=taken):
            found.take(taken)
    for wrong in ("10.0.1.3", "x"):
        with pytest.raises(Invalid, match=wrong):
            found.take(wrong)
    assert [found.take(), found.take()] == ["10.0.0.2", "10.0.0.4"]


def test_ipv6_addresses() -> None:
    found = Range(IPAMConfig(subnet="fd00::/64", gateway="fd00::1"))
    assert [found.take(), found.take()] == ["fd00::2", "fd00::3"]


def test_networks_have_ranges_of_their_own() -> None:
    addresses = Addresses()
    addresses.add("a", [IPAMConfig(subnet="10.0.0.0/24", gateway="10.0.0.1")])
    addresses.add("b", [IPAMConfig(subnet="10.0.1.0/24", gateway="10.0.1.1")])
    assert addresses.take("a", 4) == ("10.0.0.2", 24)
    assert addresses.take("b", 4) == ("10.0.1.2", 24)
    assert addresses.take("a", 6) == ("", 0)
    with pytest.raises(Invalid, match="IPv6"):
        addresses.take("a", 6, "fd00::2")


def test_known_addresses_are_not_given_out() -> None:
    addresses = Addresses()
    addresses.add("a", [IPAMConfig(subnet="10.0.0.0/30", gateway="10.0.0.1")])
    addresses.note("a", "10.0.0.2", "")
    with pytest.raises(Exhausted):
        addresses.take("a", 4)
    addresses.give("a", "10.0.0.2")
    assert addresses.take("a", 4)[0] == "10.0.0.2"
    addresses.remove("a")
    addresses.give("a", "10.0.0.2")


@given(st.lists(st.booleans(), max_size=60))
def test_never_twice(steps: list[bool]) -> None:
    """However takes and gives alternate, no address is out twice."""
    found = Range(IPAMConfig(subnet="10.0.0.0/28", gateway="10.0.0.1"))
    out: list[str] = []
    for takes in steps:
        if takes and len(out) < 13:
            address = found.take()
            assert address not in out
            out.append(address)
        elif out:
            found.give(out.pop(0))
