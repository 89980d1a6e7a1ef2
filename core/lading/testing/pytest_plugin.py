"""The pytest side of ``lading.testing``: loaded by pytest wherever ``lading`` is installed.

It does nothing by itself. ``--lading-plugin NAME`` runs the conformance kit of an installed
plugin's role and prints a report: by part of the kit, by capability, and for each rule that is
broken what was expected and what was got. ``lading_network_namespace = true`` in the ini file moves
a test run by root into a network namespace of its own, so that its bridges, addresses and firewall
rules never meet the host's. Tests marked ``root`` skip for other users. Fixtures: ``daemon``,
``scratch_daemon``, ``client``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image, docker_clients, nothing_left

CLONE_NEWNET = 0x40000000

# Failures in a kit's assertions show values only when pytest rewrites it before its import.
pytest.register_assert_rewrite("lading.testing.network", "lading.testing.extension")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("lading")
    group.addoption(
        "--lading-plugin",
        metavar="NAME",
        help="run the conformance kit of this installed plugin; ROLE/NAME where a name is two's",
    )
    group.addoption(
        "--lading-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the plugin's table in the configuration",
    )
    group.addoption(
        "--lading-remote",
        default="kit.local/kit/empty",
        metavar="HOST/REPOSITORY",
        help="where a registry transport is tested: repositories beside this one are made",
    )
    group.addoption(
        "--lading-insecure", action="store_true", help="that registry speaks plain HTTP"
    )
    parser.addini("lading_network_namespace", "run tests in a network namespace", type="bool")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; when asked to, take a plugin's kit, leave the host's namespace."""
    config.addinivalue_line("markers", "root: needs root and a real kernel")
    if name := config.getoption("lading_plugin"):
        _take_kit(config, name)
    # Before any thread exists: unshare moves the calling thread only.
    if os.geteuid() == 0 and config.getini("lading_network_namespace"):
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _take_kit(config: pytest.Config, name: str) -> None:
    """Collect the kit's tests: alone, or beside those that were named on the command line."""
    from lading.testing import _chosen, _report  # late: an ordinary run needs neither

    found = _chosen.choose(
        name,
        config.getoption("lading_option"),
        config.getoption("lading_remote"),
        insecure=config.getoption("lading_insecure"),
    )
    kit = str(Path(__file__).with_name("_installed.py"))
    given = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args = [kit, *config.args] if given else [kit]
    config.pluginmanager.register(_report.Report(found), "lading-report")


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
