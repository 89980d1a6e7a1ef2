"""The bridge backend keeps the rules of its role, with either firewall."""

from __future__ import annotations

import pytest

from lading.testing.network import NetworkConformance
from lading_network_bridge import iptables


class TestBridge(NetworkConformance):
    target = "lading_network_bridge:Bridge"


REASON = iptables.usable()[1]


@pytest.mark.skipif(bool(REASON), reason=f"iptables: {REASON}")
class TestBridgeWithIptables(NetworkConformance):
    target = "lading_network_bridge:Bridge"
    options = {"firewall": "iptables"}
