"""What the API needs of the daemon, which stands above it and puts the parts together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lading.containers import Container, Containers
from lading.images import Images
from lading.networks import Networks
from lading.store.events import Events
from lading.volumes import Volumes


class Engine(Protocol):
    """The parts of a daemon."""

    @property
    def containers(self) -> Containers: ...
    @property
    def images(self) -> Images: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def volumes(self) -> Volumes: ...
    @property
    def events(self) -> Events: ...

    def info(self) -> dict[str, Any]:
        """What ``GET /info`` shows beyond what the parts themselves know: host, backends, config.

        The members are Docker's; missing ones get the value that means "none".
        """
        ...

    def graph(self, container: Container) -> Mapping[str, str]:
        """Rows about the snapshot of a container, for ``inspect``."""
        ...
