"""The bridge backend keeps the rules of its role, with either firewall."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from lading.testing.network import NetworkConformance


class TestBridge(NetworkConformance):
    target = "lading_network_bridge:Bridge"


def lacking_iptables() -> str:
    if shutil.which("iptables") is None:
        return "this host has no iptables"
    done = subprocess.run(["iptables", "-w", "-t", "nat", "-S"], capture_output=True, check=False)
    return "" if done.returncode == 0 else f"iptables: {done.stderr.decode().strip()}"


@pytest.mark.skipif(bool(lacking_iptables()), reason=lacking_iptables())
class TestBridgeWithIptables(NetworkConformance):
    target = "lading_network_bridge:Bridge"
    options = {"firewall": "iptables"}
