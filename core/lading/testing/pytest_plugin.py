"""The pytest side of ``lading.testing``: loaded by pytest wherever ``lading`` is installed.

It does nothing by itself. ``lading_network_namespace = true`` in the ini file moves a test run by
root into a network namespace of its own, so that its bridges, addresses and firewall rules never
meet the host's. Tests marked ``root`` skip for other users. Fixtures: ``daemon``,
``scratch_daemon``, ``client``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator

import pytest

from lading.testing.daemon import Daemon, busybox_image, docker_clients, nothing_left

CLONE_NEWNET = 0x40000000

# Failures in a kit's assertions show values only when pytest rewrites it before its import.
pytest.register_assert_rewrite("lading.testing.network")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini("lading_network_namespace", "run tests in a network namespace", type="bool")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, when asked to, leave the host's network namespace."""
    config.addinivalue_line("markers", "root: needs root and a real kernel")
    # Before any thread exists: unshare moves the calling thread only.
    if os.geteuid() == 0 and config.getini("lading_network_namespace"):
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root for everybody else."""
    if os.geteuid() != 0:
        for item in items:
            if "root" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """A running daemon that holds the image ``busybox``; shared, so leave it as you found it."""
    with nothing_left(), Daemon() as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


@pytest.fixture
def scratch_daemon() -> Iterator[Daemon]:
    """A daemon with the image ``busybox`` for one test, to be killed and restarted."""
    with nothing_left(), Daemon() as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


@pytest.fixture(params=["lading", *docker_clients()])
def client(request: pytest.FixtureRequest) -> str:
    """Each client of this host in turn: ``lading`` and the real ``docker`` ones."""
    return str(request.param)
