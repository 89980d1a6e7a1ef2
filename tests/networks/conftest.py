"""Networks on a scratch database, with a backend that only remembers or with the real bridge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pluggy
import pytest

from lading import backends
from lading.backends import Backends, Loaded, Origin
from lading.config import Settings
from lading.errors import Conflict
from lading.hooks import Probe
from lading.hooks.network import Endpoint, Network, NetworkBackend, Port
from lading.linux import syscalls
from lading.model.docker import ContainerConfig, HostConfig, NetworkingConfig
from lading.networks import Networks
from lading.store.db import Database
from lading.store.events import Events


@dataclass
class Remembering:
    """A network backend without a network: what it was told is in its attributes."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"publish", "internal", "ipv6"})

    networks: dict[str, Network] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    published: dict[str, Sequence[Port]] = field(default_factory=dict)
    refuses: str = ""

    def probe(self) -> Probe:
        return Probe(True)

    def _may(self, what: str) -> None:
        if self.refuses == what:
            raise Conflict(f"{what} is refused")

    def create(self, network: Network) -> None:
        self._may("create")
        self.networks[network.id] = network

    def remove(self, network: Network) -> None:
        self._may("remove")
        self.networks.pop(network.id, None)

    def attach(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        self._may("attach")
        self.endpoints[endpoint.id] = endpoint

    def detach(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        self.endpoints.pop(endpoint.id, None)

    def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> None:
        self._may("publish")
        self.published[endpoint.id] = ports

    def unpublish(self, network: Network, endpoint: Endpoint) -> None:
        self.published.pop(endpoint.id, None)

    def recover(
        self,
        networks: Sequence[Network],
        endpoints: Mapping[str, Sequence[Endpoint]],
        published: Mapping[str, Sequence[Port]],
    ) -> None:
        self.networks = {n.id: n for n in networks}
        self.endpoints = {e.id: e for group in endpoints.values() for e in group}
        self.published = dict(published)


def _conforms(backend: Remembering) -> NetworkBackend:
    return backend


@dataclass
class Container:
    """A container as networks see it."""

    id: str
    name: str
    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig


def container(
    name: str,
    mode: str = "default",
    *,
    endpoints: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **host: Any,
) -> Container:
    """A container called ``name``, whose id begins with the name in hexadecimal."""
    return Container(
        name.encode().hex().ljust(64, "0"),
        name,
        ContainerConfig(hostname=name, **(config or {})),
        HostConfig(network_mode=mode, **host),
        NetworkingConfig(endpoints_config=dict(endpoints or {})),
    )


@pytest.fixture
def backend() -> Remembering:
    return Remembering()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def settings() -> Settings:
    return Settings(bridge="ldtcore0", bip="10.233.0.1/24", network_pool_size=0)


Open = Callable[..., Networks]


@pytest.fixture
def open_networks(
    backend: Remembering, events: Events, settings: Settings, tmp_path: Path
) -> Iterator[Open]:
    """Opens the networks of a daemon; a second call is the daemon that comes after a crash."""
    opened: list[tuple[Networks, Database]] = []

    def make(real: bool = False, settings: Settings = settings) -> Networks:
        database = Database(tmp_path / "metadata.db")
        found = _real(tmp_path) if real else _remembering(backend)
        networks = Networks(database, found, tmp_path / "netns", events, settings)
        opened.append((networks, database))
        networks.start()
        return networks

    yield make
    for networks, database in opened:
        for network in networks.list():
            for member in networks.members(network.id):
                networks.release(member.container)
        networks.close()
        database.close()
    with suppress(OSError):
        syscalls.umount2(tmp_path / "netns", syscalls.MNT_DETACH)


def _remembering(backend: Remembering) -> Backends[NetworkBackend]:
    loaded: Loaded[NetworkBackend] = Loaded(
        Origin("network", "bridge", "tests:Remembering"),
        backend,
        backend.spec_version,
        backend.capabilities,
        pluggy.PluginManager("lading"),
        backend.probe(),
    )
    return Backends("network", "bridge", {"bridge": loaded})


def _real(tmp_path: Path) -> Backends[NetworkBackend]:
    contexts = backends.contexts_under(tmp_path / "data", tmp_path / "run", "network", {})
    found = backends.load("network", contexts, only=["bridge"])
    if not found.usable():
        pytest.skip("no usable network backend: " + str(found.failed or found.loaded))
    return found


@pytest.fixture
def networks(open_networks: Open) -> Networks:
    return open_networks()
