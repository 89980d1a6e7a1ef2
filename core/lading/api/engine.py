"""What the API needs of the daemon, which stands above it and puts the parts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lading.api.parameters import Filters
from lading.api.progress import Emit
from lading.backends import Backends
from lading.build.builder import Builder
from lading.config import Settings
from lading.containers import Container, Containers
from lading.images import Images
from lading.model.docker import AuthConfig
from lading.networks import Networks
from lading.store.events import Events
from lading.volumes import Volumes


class Transfers(Protocol):
    """Between here and registries. ``auth`` is what the client sent along.

    ``name`` is a reference as the user wrote it; progress goes to ``emit`` in the form of Docker's
    JSON messages.
    """

    def pull(
        self,
        name: str,
        emit: Emit,
        *,
        auth: AuthConfig | None,
        platform: str,
        gone: Callable[[], bool],
    ) -> None:
        """Pull an image; without a tag, all of the repository's. ``gone``: give up."""
        ...

    def push(
        self,
        name: str,
        emit: Emit,
        *,
        auth: AuthConfig | None,
        platform: str,
        gone: Callable[[], bool],
    ) -> None:
        """Push an image; without a tag, all of its repository's."""
        ...

    def search(
        self, term: str, *, limit: int, filters: Filters, auth: AuthConfig | None
    ) -> Sequence[Mapping[str, Any]]:
        """Search a registry; rows in Docker's JSON."""
        ...

    def distribution(self, name: str, *, auth: AuthConfig | None) -> Mapping[str, Any]:
        """What a registry has under that name, in Docker's JSON."""
        ...

    def manifests(
        self, name: str, *, auth: AuthConfig | None, every: bool, insecure: bool
    ) -> Sequence[Mapping[str, Any]]:
        """A manifest, and with ``every`` those that an index leads to."""
        ...

    def login(self, auth: AuthConfig) -> str:
        """Check credentials; returns an identity token or "". Raises Unauthorized."""
        ...


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

    @property
    def transfers(self) -> Transfers: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def roles(self) -> Sequence[Backends[Any]]: ...

    def builder(self) -> Builder:
        """What builds images."""
        ...

    def info(self) -> dict[str, Any]:
        """What ``GET /info`` shows beyond what the parts themselves know: host, backends, config.

        The members are Docker's; missing ones get the value that means "none".
        """
        ...

    def reload_plugin(self, name: str) -> None:
        """Take over a new version of a backend. Raises NotFound, Unsupported, LadingError."""
        ...

    def graph(self, container: Container) -> Mapping[str, str]:
        """Rows about the snapshot of a container, for ``inspect``."""
        ...
