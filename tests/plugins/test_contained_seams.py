"""Filesystem and network backends that hang in a hook stall nobody else, nor the daemon's start."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from throwaway import install

from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left

pytestmark = pytest.mark.root

ODD = """
import os, time
from lading.hooks import hookimpl
from {module} import {name}

class Backend({name}):
    @hookimpl
    def {hook}({parameters}):
        time.sleep(3600)
"""
FILESYSTEM = {
    "prepare": "self, key, parent, labels",
    "mounts": "self, key",
    "commit": "self, key, name",
    "usage": "self, key",
    "remove": "self, key",
    "walk": "self",
}
NETWORK = {
    "create": "self, network",
    "attach": "self, network, endpoint, netns",
    "detach": "self, network, endpoint, netns",
    "remove": "self, network",
    "recover": "self, networks, endpoints, published",
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a backend for each hook that hangs; its start is the first test."""
    site = tmp_path_factory.mktemp("odd") / "site"
    odd = [
        *(("filesystem", "lading_fs_vfs", "Vfs", h, p) for h, p in FILESYSTEM.items()),
        *(("network", "lading_network_bridge", "Bridge", h, p) for h, p in NETWORK.items()),
    ]
    for role, module, name, hook, parameters in odd:
        source = ODD.format(module=module, name=name, hook=hook, parameters=parameters)
        install(site, f"{role}-{hook}", source, role=role)
    running = Daemon(environment={"PYTHONPATH": str(site)})
    with nothing_left():
        start_patiently(running)
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running
        for role, module, name, hook, _ in odd:
            healthy = f"from {module} import {name} as Backend\n"
            install(site, f"{role}-{hook}", healthy, role=role)
        running.kill()
        running.start()
        running.close()


def still_serves(daemon: Daemon) -> None:
    for _ in range(2):
        done = daemon.client("lading", "run", "--rm", "busybox", "echo", "on", timeout=30)
        assert done.stdout == b"on\n"
    for words in (["ps", "-a"], ["images"], ["info"], ["network", "ls"]):
        daemon.client("lading", *words, timeout=30)


def hangs(daemon: Daemon, *arguments: str) -> None:
    """The request does not come back, and everybody else is served meanwhile."""
    command = [find_client("lading"), "-H", daemon.host, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as hanging:
        try:
            time.sleep(1)
            still_serves(daemon)
            assert hanging.poll() is None, hanging.communicate()
        finally:
            hanging.kill()


def test_a_first_use_that_hangs_is_a_failure(daemon: Daemon) -> None:
    said = [row for row in daemon.log().splitlines() if '"filesystem-walk"' in row]
    assert len(said) == 1
    assert "its first use did not finish within 10 s" in said[0]
    still_serves(daemon)


def test_prepare(daemon: Daemon) -> None:
    hangs(daemon, "create", "--storage", "filesystem-prepare", "busybox", "true")


def test_mounts(daemon: Daemon) -> None:
    daemon.client(
        "lading", "create", "--name", "m", "--storage", "filesystem-mounts", "busybox", "true"
    )
    hangs(daemon, "start", "m")


def test_commit(daemon: Daemon) -> None:
    hangs(daemon, "create", "--storage", "filesystem-commit", "busybox", "true")


def test_remove(daemon: Daemon) -> None:
    daemon.client(
        "lading", "create", "--name", "r", "--storage", "filesystem-remove", "busybox", "true"
    )
    hangs(daemon, "rm", "r")


def test_usage(daemon: Daemon) -> None:
    daemon.client(
        "lading", "create", "--name", "u", "--storage", "filesystem-usage", "busybox", "true"
    )
    hangs(daemon, "ps", "-a", "-s")


@pytest.mark.parametrize("hook", ["create"])
def test_network_create(daemon: Daemon, hook: str) -> None:
    hangs(daemon, "network", "create", "--driver", f"network-{hook}", f"n-{hook}")


def test_network_attach(daemon: Daemon) -> None:
    daemon.client("lading", "network", "create", "--driver", "network-attach", "n-attach")
    hangs(daemon, "run", "--network", "n-attach", "busybox", "true")


def test_network_detach(daemon: Daemon) -> None:
    daemon.client("lading", "network", "create", "--driver", "network-detach", "n-detach")
    done = daemon.client(
        "lading", "run", "--network", "n-detach", "busybox", "echo", "ran", timeout=30
    )
    assert done.stdout == b"ran\n"
    still_serves(daemon)


def test_network_remove(daemon: Daemon) -> None:
    daemon.client("lading", "network", "create", "--driver", "network-remove", "n-remove")
    hangs(daemon, "network", "rm", "n-remove")


@pytest.mark.slow
def test_recover(daemon: Daemon) -> None:
    """The next daemon starts, although a network's backend does not come back."""
    daemon.client("lading", "network", "create", "--driver", "network-recover", "n-recover")
    daemon.stop()
    start_patiently(daemon)
    assert 'networks of driver "network-recover": recover did not finish' in daemon.log()
    still_serves(daemon)


def start_patiently(daemon: Daemon) -> None:
    """Two backends use up their time: the walk of one, then the recovery of the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lading.testing.daemon.START_SECONDS", 100.0)
        daemon.start()
