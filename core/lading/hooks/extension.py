"""The extension role: watch, veto, wrap and add.

An extension is a plugin of group ``lading.extension``. It is loaded only when the config names
it (``extensions = ["trace"]``), unlike backends, since it takes part in every operation. All
hooks are optional: an extension implements those it wants.

Four powers:

``wrap``       sit around every call into every backend: time it, refuse it, delay it.
``operation_*`` be told in whose course such calls are made.
``before_*``   be asked before something happens; raising :class:`~lading.errors.Denied` vetoes it.
``register_*`` add commands to ``lading`` and routes to the API.

``event`` tells what has happened; it cannot veto. Hooks run in the daemon, in the thread of
the request, and should take milliseconds; ``event`` runs in a thread of its own, in order.
An exception in ``event`` or ``register_*`` is logged; one in ``before_*`` is a veto.

``register_commands`` is looked for in *all* installed extensions, enabled or not, and runs in
the client: it must import nothing heavy.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

from lading.hooks.common import PROJECT, Probe, hookimpl, hookspec

SPEC_VERSION = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that the daemon does, in whose course hooks of backends are called.

    ``id`` are 32 hexadecimal digits, fit for a trace id of W3C Trace Context. ``name`` says what
    it is: ``POST /containers/create`` for a request of the API, words for what the daemon does by
    itself. ``began`` is in nanoseconds since 1970. ``parent`` is the header ``traceparent`` that
    the client sent, or "". :func:`lading.operations.current` tells the id in whose course the
    caller is called, also in the processes of monitors.
    """

    id: str
    name: str
    began: int
    attributes: Mapping[str, str]
    parent: str = ""


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
    def operation_began(self, operation: Operation) -> None:
        """See that an operation begins; called in its thread, before any hook of it."""
        ...

    @hookspec
    def operation_ended(self, operation: Operation, error: str) -> None:
        """See that it is over, its response sent; ``error`` is empty when it went well."""
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
        are wrapped in the daemon, and by another object of the extension in the spawner, from
        which all monitors are forked; the others in the daemon only. :func:`around` makes an
        object that wraps all hooks alike.
        """
        ...


#: What sits around a call: given the hook's name and arguments, it yields once, is sent what the
#: hook returned (or thrown what it raised), and returns what the caller gets. See pluggy, wrappers.
Around = Callable[[str, Mapping[str, Any]], Generator[None, Any, Any]]


def around(role: str, call: Around) -> object:
    """Make an object for ``wrap`` that puts ``call`` around every hook of a role.

    A hook that returns an iterator has been called when it returns, not when that is used up.
    """
    contract = importlib.import_module(f"lading.hooks.{role}")
    wrapper = SimpleNamespace()
    for protocol in (main_protocol(role), *contract.OPTIONAL.values()):
        for name in hook_names(protocol):
            setattr(wrapper, name, _around(name, getattr(protocol, name), call))
    return wrapper


def _around(name: str, spec: Callable[..., Any], call: Around) -> Callable[..., Any]:
    """One wrapper with the parameters of its hook."""
    parameters = list(inspect.signature(spec).parameters)[1:]  # without self

    # pluggy looks through wraps for the arguments that are wanted, and passes them in that order.
    @wraps(spec)
    def wrapper(*arguments: Any) -> Generator[None, Any, Any]:
        """Call it with named arguments."""
        return (yield from call(name, dict(zip(parameters, arguments, strict=True))))

    return hookimpl(wrapper=True)(wrapper)


def main_protocol(role: str) -> type:
    """The Protocol of a role that every backend implements."""
    contract = importlib.import_module(f"lading.hooks.{role}")
    name = {"network": "NetworkBackend"}.get(role, role.capitalize())
    found: type = getattr(contract, name)
    return found


def hook_names(protocol: type) -> set[str]:
    """The names of a Protocol's hooks."""
    return {n for n in dir(protocol) if hasattr(getattr(protocol, n), f"{PROJECT}_spec")}


OPTIONAL: Mapping[str, type] = {}

#: An extension implements the hooks it wants: it has nothing to declare.
CAPABILITIES: Mapping[str, str] = {}
