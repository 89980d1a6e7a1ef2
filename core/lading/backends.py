"""Find backends, check them against their role's contract, and call them.

Discovery is stevedore's: entry points of the groups ``lading.isolation``, ``lading.filesystem``,
``lading.network``, ``lading.registry`` and ``lading.extension``. Each backend gets a
:class:`pluggy.PluginManager` of its own, of which it is the implementor and which extensions may
wrap. Nothing that a backend does at import, construction or ``probe`` can stop the others: what
fails is kept as :class:`Failed` with its reason and the way to mend it.

pluggy by itself accepts a backend that lacks hooks, misspells one or drops a parameter, so
:func:`_validate` checks for all three and says what would be right.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import pluggy

from lading.errors import LadingError, NotFound, Unavailable, Unsupported
from lading.hooks.common import PROJECT, Context, Probe
from lading.hooks.extension import hook_names, main_protocol

if TYPE_CHECKING:
    # At run time the spawner does without them: what it holds, every monitor holds.
    from importlib.metadata import EntryPoint

    from lading.load_policy import Policy

ROLES = ("isolation", "filesystem", "network", "registry")

#: Seconds that an import with construction, and a ``probe``, may take before they count as hung.
LOAD_DEADLINE = 10.0
PROBE_DEADLINE = 3.0
#: And what each backend does at the daemon's start before anybody is served.
START_DEADLINE = 10.0
#: Or at its end, when nobody is served any more.
END_DEADLINE = 5.0

Spec = TypeVar("Spec")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a backend comes from: its entry point (``target`` is ``module:attribute``)."""

    role: str
    name: str
    target: str
    distribution: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A backend that is installed but was not loaded, and why."""

    origin: Origin
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Spec]):
    """A backend that passed the checks. ``hook`` is called by keyword, as its Protocol says."""

    origin: Origin
    hook: Spec
    spec_version: int
    capabilities: frozenset[str]
    manager: pluggy.PluginManager
    probe: Probe

    @property
    def name(self) -> str:
        """The short name that users write."""
        return self.origin.name

    def require(self, capability: str) -> None:
        """Raise Unsupported unless the backend declares the capability."""
        if capability not in self.capabilities:
            raise Unsupported(
                f'{self.origin.role} backend "{self.name}" cannot do "{capability}"',
                hint="it can: " + (", ".join(sorted(self.capabilities)) or "nothing optional"),
            )


@dataclass(slots=True)
class Backends(Generic[Spec]):
    """The backends of one role: those that loaded, those that failed, and the default."""

    role: str
    default: str = ""
    loaded: dict[str, Loaded[Spec]] = field(default_factory=dict)
    failed: dict[str, Failed] = field(default_factory=dict)

    def get(self, name: str = "") -> Loaded[Spec]:
        """Return a backend by short name ("" = the default).

        One that could not work is probed anew: what it lacked may have been mended, or started,
        meanwhile. Raises NotFound for a name that no installed distribution offers (listing those
        that do exist), Unavailable for one that failed to load or cannot work on this host.
        """
        name = name or self.default
        if failed := self.failed.get(name):
            raise Unavailable(
                f'{self.role} backend "{name}" failed: {failed.reason}', hint=failed.remedy
            )
        backend = self.loaded.get(name)
        if backend is None:
            known = ", ".join(sorted(self.loaded)) or "none"
            raise NotFound(
                f'no {self.role} backend "{name}" is installed', hint=f"installed: {known}"
            )
        if not backend.probe.usable:
            backend = self.loaded[name] = probed(backend)
        if not backend.probe.usable:
            raise Unavailable(
                f'{self.role} backend "{name}" is not usable here: {backend.probe.reason}',
                hint=backend.probe.remedy,
            )
        return backend

    def usable(self) -> list[Loaded[Spec]]:
        """The backends that work on this host, by name."""
        return [b for _, b in sorted(self.loaded.items()) if b.probe.usable]

    def each(self, work: Callable[[Loaded[Spec]], object], *, at_start: bool = False) -> None:
        """Do ``work`` with each usable backend; what one raises is logged, the others go on.

        ``at_start``: one that takes longer than :data:`START_DEADLINE` goes on by itself.
        """
        for backend in self.usable():
            try:
                if at_start:
                    _try(backend, work, "sweeping")
                else:
                    work(backend)
            except Exception as error:
                log.error('%s backend "%s": %s', self.role, backend.name, reason_of(error))


def discover(role: str, *, fresh: bool = False) -> list[Origin]:
    """List the entry points of a role without importing any of them.

    ``fresh``: also what was installed since this process began; stevedore's cache passes it over.
    """
    # Imported here: the spawner and plain clients of this module do without them.
    from importlib.metadata import entry_points

    from stevedore.named import NamedExtensionManager

    group = f"{PROJECT}.{role}"
    if fresh:
        importlib.invalidate_caches()
        points: list[EntryPoint] = list(entry_points(group=group))
    else:
        points = NamedExtensionManager(group, names=[]).list_entry_points()
    # stevedore's cache forgets which distribution an entry point is from.
    owners = {(p.name, p.value): p.dist for p in entry_points(group=group)}
    origins = []
    for point in points:
        dist = owners.get((point.name, point.value))
        name, version = (dist.name, dist.version) if dist else ("", "")
        origins.append(Origin(role, point.name, point.value, name, version))
    return sorted(origins, key=lambda o: (o.name, o.distribution))


def load(
    role: str,
    contexts: Callable[[str], Context],
    *,
    default: str = "",
    only: Sequence[str] = (),
    policy: Policy | None = None,
    wrappers: Sequence[Any] = (),
    failed: Mapping[str, str] = {},
    trial: Callable[[Any], object] | None = None,
) -> Backends[Any]:
    """Load every installed backend of a role (or those named in ``only``), keeping failures.

    ``contexts`` makes the :class:`Context` for a name; ``wrappers`` are extensions, asked through
    their ``wrap`` method for an object that wraps this backend's hooks. ``failed`` names those that
    another process of the engine could not load already, with the reason. ``trial`` is called with
    each usable one: who fails in it, or does not end, has failed.
    """
    found: Backends[Any] = Backends(role, default)
    for origin in discover(role):
        if only and origin.name not in only:
            continue
        if origin.name in found.loaded or origin.name in found.failed:
            _keep(found, f"{origin.name} of {origin.distribution}", _name_is_taken(origin))
            continue
        try:
            if policy is not None:
                policy.check(origin.distribution, origin.target)
            if reason := failed.get(origin.name):
                raise LadingError(reason)
            backend = assemble(origin, contexts(origin.name), wrappers)
            if trial is not None and backend.probe.usable:
                _try(backend, trial, "its first use")
            found.loaded[origin.name] = backend
        except Exception as error:
            failure = Failed(origin, reason_of(error), _remedy(origin, error))
            _keep(found, origin.name, failure)
    return found


def _try(backend: Loaded[Any], work: Callable[[Loaded[Any]], object], what: str) -> None:
    under_deadline(lambda: work(backend), START_DEADLINE, what)


def _keep(found: Backends[Any], key: str, failure: Failed) -> None:
    found.failed[key] = failure
    role, name = failure.origin.role, failure.origin.name
    log.warning('%s backend "%s" failed: %s', role, name, failure.reason)


def _name_is_taken(origin: Origin) -> Failed:
    return Failed(
        origin,
        f"{origin.distribution} is ignored: another distribution has the name",
        f"uninstall one of the distributions that offer {origin.role} backend {origin.name}",
    )


def assemble(
    origin: Origin, context: Context, wrappers: Sequence[Any] = (), *, probe: bool = True
) -> Loaded[Any]:
    """Import, construct, check and (unless told not to) probe one backend.

    Raises whatever the plugin raised, LadingError for a breach of contract or a missed deadline.
    """
    backend = under_deadline(
        lambda: _construct(origin, context), LOAD_DEADLINE, "import and construction"
    )
    manager = _validate(origin, backend)
    for extension in wrappers:
        wrapper = extension.wrap(role=origin.role, name=origin.name)
        if wrapper is not None:
            manager.register(wrapper)
    answer = Probe(usable=True)
    if probe:
        answer = _probe(manager)
    return Loaded(
        origin,
        cast(Any, manager.hook),
        int(backend.spec_version),
        frozenset(backend.capabilities),
        manager,
        answer,
    )


def _construct(origin: Origin, context: Context) -> Any:
    module, _, attribute = origin.target.partition(":")
    target: Any = importlib.import_module(module)
    for part in attribute.split("."):
        target = getattr(target, part)
    for directory in (context.data, context.run):
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    return target(context)


def probed(backend: Loaded[Any]) -> Loaded[Any]:
    """The backend with a fresh answer of its ``probe``; one that fails is not usable."""
    try:
        answer = _probe(backend.manager)
    except Exception as error:
        answer = Probe(usable=False, reason=reason_of(error))
    return replace(backend, probe=answer)


def _probe(manager: pluggy.PluginManager) -> Probe:
    if not manager.hook.probe.get_hookimpls():
        return Probe(usable=True)  # an extension need not have the hook
    answer = under_deadline(manager.hook.probe, PROBE_DEADLINE, "probe")
    if not isinstance(answer, Probe):
        raise LadingError(f"probe returned {type(answer).__name__}, not lading.hooks.Probe")
    return answer


def under_deadline(call: Callable[[], Result], seconds: float, what: str) -> Result:
    """Run ``call`` in a thread of its own; a hang is reported and the thread abandoned."""
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name=f"backend-{what}")
    thread.start()
    thread.join(seconds)
    if errors and not isinstance(errors[0], Exception):
        # SystemExit and its like are a plugin's last word, not the engine's.
        raise LadingError(reason_of(errors[0])) from errors[0]
    if errors:
        raise errors[0]
    if not outcome:
        raise LadingError(f"{what} did not finish within {seconds:g} s")
    return outcome[0]


def _validate(origin: Origin, backend: Any) -> pluggy.PluginManager:
    contract = importlib.import_module(f"lading.hooks.{origin.role}")
    required = main_protocol(origin.role)
    for attribute in ("spec_version", "capabilities"):
        if not hasattr(backend, attribute):
            raise LadingError(f"the backend has no attribute {attribute}")
    if not isinstance(backend.spec_version, int):
        raise LadingError(f"its spec_version is {backend.spec_version!r}, not a whole number")
    if not isinstance(backend.capabilities, set | frozenset):
        kind = type(backend.capabilities).__name__
        raise LadingError(f"its capabilities are a {kind}, not a frozenset of names")
    if not 1 <= backend.spec_version <= contract.SPEC_VERSION:
        raise LadingError(
            f"written for version {backend.spec_version} of the {origin.role} contract; "
            f"this Lading speaks versions 1 to {contract.SPEC_VERSION}",
            hint=f"install the version of {origin.distribution or 'it'} that is for this Lading",
        )
    if unknown := sorted(set(backend.capabilities) - set(contract.CAPABILITIES)):
        log.warning(
            '%s backend "%s" declares %s, which mean nothing here; known: %s',
            origin.role,
            origin.name,
            ", ".join(unknown),
            ", ".join(contract.CAPABILITIES),
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(required)
    wanted = hook_names(required)
    for capability, protocol in contract.OPTIONAL.items():
        manager.add_hookspecs(protocol)
        if capability in backend.capabilities:
            wanted |= hook_names(protocol)
    try:
        manager.register(backend, name=origin.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise LadingError(_breach(manager, error)) from error
    if origin.role == "extension":
        wanted = {name for name in wanted if hasattr(backend, name)}
    for hook in sorted(wanted):
        _check_hook(manager, origin.name, hook)
    return manager


def _check_hook(manager: pluggy.PluginManager, plugin: str, hook: str) -> None:
    caller = getattr(manager.hook, hook)
    spec = caller.spec
    signature = str(inspect.signature(spec.function))
    impls = [i for i in caller.get_hookimpls() if i.plugin_name == plugin]
    if not impls:
        raise LadingError(f"it lacks the hook {hook}{signature}")
    missing = [a for a in spec.argnames if a not in impls[0].argnames]
    if missing:
        raise LadingError(
            f"hook {hook} does not take {', '.join(missing)}; its signature is {hook}{signature}"
        )


def _breach(manager: pluggy.PluginManager, error: pluggy.PluginValidationError) -> str:
    """What pluggy says in several lines, in one, with the signature that would be right."""
    text = " ".join(str(error).split())
    for name in re.findall(r"for hook '(\w+)'", text):
        caller = getattr(manager.hook, name)
        return f"{text}; its signature is {name}{inspect.signature(caller.spec.function)}"
    return text


def reason_of(error: BaseException) -> str:
    """What went wrong with a plugin, in one line."""
    if isinstance(error, LadingError) and error.message:
        return error.message.splitlines()[0]
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"


def _remedy(origin: Origin, error: BaseException) -> str:
    if isinstance(error, LadingError) and error.hint:
        return error.hint
    if isinstance(error, ModuleNotFoundError):
        return f'install what it needs: the module "{error.name}"'
    return f"report it to the authors of {origin.distribution}" if origin.distribution else ""


def contexts_under(
    data_root: Path, exec_root: Path, role: str, options: Mapping[str, Mapping[str, Any]]
) -> Callable[[str], Context]:
    """The usual maker of contexts: ``<root>/<role>/<name>`` under both roots."""

    def make(name: str) -> Context:
        return Context(
            name, data_root / role / name, exec_root / role / name, options.get(name, {})
        )

    return make
