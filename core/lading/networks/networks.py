"""The face of the network core; see :mod:`lading.networks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lading.backends import Backends
from lading.config import Settings
from lading.hooks.network import NetworkBackend
from lading.model.docker import EndpointSettings, NetworkCreate, NetworkingConfig
from lading.monitor import Spawner
from lading.networks.records import (
    ContainerNetworks,
    Created,
    Link,
    Member,
    Network,
    Sandbox,
    Subject,
)
from lading.store.db import Database
from lading.store.events import Events


class Networks:
    """All networks of a daemon. All methods may be called from any thread.

    ``run`` is the directory of namespaces, on tmpfs. A network is named by name, id or a unique
    beginning of its id; a container always by its full id.
    """

    def __init__(
        self,
        db: Database,
        backends: Backends[NetworkBackend],
        run: Path,
        spawner: Spawner,
        events: Events,
        settings: Settings,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Let the networks stand: predefined ones made, what an earlier daemon left taken up.

        Containers that still have a sandbox keep it, with addresses and published ports; everything
        else is swept. Call it after ``release`` for containers that have ended meanwhile.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go: ready sandboxes are removed, networks and containers' sandboxes stay."""
        raise NotImplementedError

    def create(self, body: NetworkCreate) -> Created:
        """Make a network. Raises Conflict for a taken name or range, Invalid, Unsupported."""
        raise NotImplementedError

    def get(self, ref: str) -> Network:
        """Find a network. Raises NotFound; Invalid when the beginning of an id is ambiguous."""
        raise NotImplementedError

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[Network]:
        """Networks that pass ``--filter``, sorted by name. Raises Invalid for unknown filters."""
        raise NotImplementedError

    def members(self, network_id: str) -> Sequence[Member]:
        """The running containers on a network."""
        raise NotImplementedError

    def remove(self, ref: str) -> None:
        """Remove a network. Raises NotFound, InUse while containers are on it, Denied (predefined)."""
        raise NotImplementedError

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[str]:
        """Remove the networks that no container is on; returns their names."""
        raise NotImplementedError

    def check(self, mode: str, networking: NetworkingConfig) -> None:
        """Raises what ``allocate`` would for a mode and endpoints that can never work."""
        raise NotImplementedError

    def allocate(
        self, container: Subject, *, links: Sequence[Link] = (), joined: str = "", remapped: bool = False
    ) -> Sandbox:
        """Make the network of a container that is about to start: attached and published.

        ``joined`` is the id of the container whose network is shared (mode ``container:``).
        ``remapped``: the container gets a user namespace, which must own its network namespace;
        the sandbox is then deferred. Raises Conflict for a taken port or address, NotFound for
        a missing network, Unavailable for a backend that does not work; nothing is left then.
        """
        raise NotImplementedError

    def attach(self, container_id: str, netns: str) -> None:
        """Connect a deferred sandbox to the namespace that the container now has; publish ports."""
        raise NotImplementedError

    def release(self, container_id: str) -> None:
        """Take a sandbox back: ports at once, interfaces in the background. Silent when none."""
        raise NotImplementedError

    def forget(self, container_id: str) -> None:
        """Drop all that is known of a container that is removed; silent when nothing is."""
        raise NotImplementedError

    def rename(self, container_id: str, name: str) -> None:
        """Answer DNS queries for a running container under its new name."""
        raise NotImplementedError

    def connect(self, ref: str, container: Subject, settings: EndpointSettings) -> Sandbox | None:
        """Join a network; the new contents of the container's files when it runs.

        Raises Denied for containers that share a namespace, Conflict when it is there already.
        """
        raise NotImplementedError

    def disconnect(self, ref: str, container: Subject, *, force: bool = False) -> Sandbox | None:
        """Leave a network; likewise. Raises NotFound when it is not on it (unless ``force``)."""
        raise NotImplementedError

    def of(self, container: Subject) -> ContainerNetworks:
        """What ``inspect`` shows of a container's networks, running or not."""
        raise NotImplementedError
