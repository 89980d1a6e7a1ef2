"""Fixtures of the command line's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_daemon import Answer, FakeDaemon


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A recording daemon; the client's configuration is empty."""
    for name in ("DOCKER_HOST", "LADING_HOST", "DOCKER_API_VERSION", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    daemon = FakeDaemon(tmp_path / "s")
    daemon.on("HEAD", "/_ping", Answer())
    daemon.on("GET", "/_ping", Answer(b"OK"))
    yield daemon
    daemon.close()
