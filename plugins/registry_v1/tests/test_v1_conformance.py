"""The transport keeps the contract, against the registry that Lading brings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.hooks.registry import Remote
from lading.testing.registry import Factory, RegistryConformance
from lading_registry_v1 import RegistryV1

server = pytest.importorskip("lading_registry_server.serve", reason="no registry to talk to")


class TestRegistryV1(RegistryConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return RegistryV1

    @pytest.fixture
    def remote(self, tmp_path: Path) -> Iterator[Remote]:
        with server.running(tmp_path / "registry", ["127.0.0.1:0"]) as running:
            port = running.listeners[0].socket.getsockname()[1]
            yield Remote(f"127.0.0.1:{port}", "kit/empty", insecure=True)
