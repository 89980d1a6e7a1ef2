"""The network kit catches backends that break a rule, and says which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FILE = """
import socket
import subprocess
from dataclasses import replace
from lading.hooks import hookimpl
from lading.testing.network import NetworkConformance
from lading_network_bridge import Bridge

def ip(*words):
    subprocess.run(["ip", *words], check=False, capture_output=True)


class Broken(Bridge):
{method}


class TestBroken(NetworkConformance):
    target = "{module}:Broken"
"""

#: By name: what is wrong with it, and the test that must find it.
BROKEN = {
    "leaves-its-bridge": (
        "remove(self, network): pass",
        "test_a_network_is_made_and_removed_without_a_trace",
    ),
    "takes-any-option": (
        "create(self, network): super().create(replace(network, options={}))",
        "test_an_unknown_option_is_refused",
    ),
    "leaves-interfaces": (
        "detach(self, network, endpoint, netns): pass",
        "test_detached_is_gone",
    ),
    "always-routes": (
        "attach(self, network, endpoint, netns):\n"
        "        super().attach(network, replace(endpoint, default_route=True), netns)",
        "test_without_default_route",
    ),
    "invents-addresses": (
        "attach(self, network, endpoint, netns):\n"
        "        super().attach(network, replace(endpoint, mac='02:00:00:00:00:01'), netns)",
        "test_an_attached_interface_is_ready",
    ),
    "publishes-everywhere": (
        "publish(self, network, endpoint, ports):\n"
        "        ports = [replace(port, host_ip='') for port in ports]\n"
        "        super().publish(network, endpoint, ports)",
        "test_published_on_one_address_only",
    ),
    "never-unpublishes": (
        "unpublish(self, network, endpoint): pass",
        "test_unpublished_is_closed",
    ),
    "is-never-internal": (
        "create(self, network): super().create(replace(network, internal=False))\n\n"
        "    @hookimpl\n"
        "    def attach(self, network, endpoint, netns):\n"
        "        super().attach(replace(network, internal=False), endpoint, netns)",
        "test_an_internal_network_has_no_way_out",
    ),
    "does-not-sweep": (
        "recover(self, networks, endpoints, published): pass",
        "test_recovery_sweeps_the_rest",
    ),
    "finds-what-is-gone": (
        "attach(self, network, endpoint, netns):\n"
        "        try:\n"
        "            super().attach(network, endpoint, netns)\n"
        "        except Exception:\n"
        "            pass",
        "test_a_namespace_that_is_gone_is_not_found",
    ),
    "sweeps-what-is-not-its-own": (
        "recover(self, networks, endpoints, published):\n"
        "        super().recover(networks, endpoints, published)\n"
        "        for _, name in socket.if_nameindex():\n"
        "            if name.startswith('ldt'):\n"
        "                ip('link', 'del', name)",
        "test_recovery_sweeps_the_rest",
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_backend(tmp_path: Path, name: str) -> None:
    method, caught = BROKEN[name]
    module = f"test_{name.replace('-', '_')}"
    body = f"    @hookimpl\n    def {method}\n"
    (tmp_path / f"{module}.py").write_text(FILE.format(method=body, module=module))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", caught, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert f"TestBroken::{caught}" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout, done.stdout
