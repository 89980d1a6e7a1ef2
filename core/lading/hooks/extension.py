"""The extension role: watch, veto, wrap and add.

An extension is a plugin of group ``lading.extension``. It is loaded only when the config names
it (``extensions = ["trace"]``), unlike backends, since it takes part in every operation. All
hooks are optional: an extension implements those it wants.

Three powers:

``wrap``       sit around every call into every backend: time it, refuse it, delay it.
``before_*``   be asked before something happens; raising :class:`~lading.errors.Denied` vetoes it.
``register_*`` add commands to ``lading`` and routes to the API.

``event`` tells what has happened; it cannot veto. Hooks run in the daemon, in the thread of
the request, and should take milliseconds; ``event`` runs in a thread of its own, in order.
An exception in ``event`` or ``register_*`` is logged; one in ``before_*`` is a veto.

``register_commands`` is looked for in *all* installed extensions, enabled or not, and runs in
the client: it must import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from lading.hooks.common import Probe, hookspec

SPEC_VERSION = 1


class Commands(Protocol):
    """Where ``register_commands`` adds a command."""

    def add(self, name: str, target: str, help: str) -> None:
        """Add ``lading NAME``: ``target`` is ``module:attribute`` of a click command.

        It is imported only when the user calls it. Raises Conflict when the name is taken.
        """
        ...


class Routes(Protocol):
    """Where ``register_routes`` adds a route of the API."""

    def add(self, method: str, pattern: str, handler: Any) -> None:
        """Add a route; ``handler(request)`` gets and returns what ``lading.http`` defines."""
        ...


class Extension(Protocol):
    """The hooks an extension may implement."""

    spec_version: ClassVar[int]
    capabilities: ClassVar[frozenset[str]]

    @hookspec(firstresult=True)
    def probe(self) -> Probe:
        """Tell whether this extension works here."""
        ...

    @hookspec
    def before_container(self, action: str, container: Mapping[str, Any]) -> None:
        """Be asked before ``create``, ``start``, ``exec`` or ``remove`` of a container.

        ``container`` is what ``docker inspect`` shows (for ``create``: the request). Raises
        Denied to veto, with the text that the user sees.
        """
        ...

    @hookspec
    def before_image(self, action: str, reference: str) -> None:
        """Be asked before ``pull``, ``push`` or ``remove`` of an image. Raises Denied to veto."""
        ...

    @hookspec
    def event(self, event: Mapping[str, Any]) -> None:
        """See each event, as the API's ``/events`` gives it."""
        ...

    @hookspec
    def register_commands(self, commands: Commands) -> None:
        """Add commands to the ``lading`` client."""
        ...

    @hookspec
    def register_routes(self, routes: Routes) -> None:
        """Add routes to the daemon's API."""
        ...

    @hookspec(firstresult=True)
    def wrap(self, role: str, name: str) -> object | None:
        """Return an object with ``hookimpl(wrapper=True)`` methods for this backend, or None.

        ``role`` is ``isolation``, ``filesystem``, ``network`` or ``registry``. Isolation backends
        are wrapped in the daemon and again in every monitor.
        """
        ...


OPTIONAL: Mapping[str, type] = {}
