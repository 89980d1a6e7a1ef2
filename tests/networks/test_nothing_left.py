"""What the tests' own look for leftovers takes for one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from lading.testing import daemon

pytestmark = pytest.mark.root


def ip(*words: str) -> None:
    subprocess.run(["ip", "link", *words], check=True)


@pytest.fixture
def bridge() -> Iterator[str]:
    ip("add", "left-bridge", "type", "bridge")
    yield "left-bridge"
    ip("delete", "left-bridge")


def test_what_comes_to_a_bridge_that_was_there_is_its_daemon_s(bridge: str) -> None:
    with daemon.nothing_left():
        ip("add", "left-one", "type", "veth", "peer", "name", "left-other")
        ip("set", "left-one", "master", bridge)
        ip("set", "left-other", "master", bridge)
    ip("delete", "left-one")


def test_an_interface_of_nobody_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "GRACE_SECONDS", 0)
    with pytest.raises(AssertionError, match="left-alone"), daemon.nothing_left():
        ip("add", "left-alone", "type", "bridge")
    ip("delete", "left-alone")
