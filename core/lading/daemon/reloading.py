"""Taking over new versions of backends while the daemon runs and containers run on them.

A backend object is made anew from what is installed now. Whoever calls hooks asks for the backend
each time, so the next call in the daemon is the new code's. Monitors keep the code that they were
forked with; new ones come from a new spawner, while the old one ends with its tasks.

Filesystem backends hold the table of their snapshots in memory, and extensions sit in the hooks of
the others: those that are in use change with the daemon, whose containers outlive it.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lading.backends import Backends, Loaded, Origin, assemble, discover, reason_of
from lading.choice import contexts, policy_of
from lading.config import Settings
from lading.errors import LadingError, NotFound, Unsupported
from lading.monitor import IsolationSpec, Spawner

log = logging.getLogger(__name__)

#: Roles whose backends keep nothing between calls, as their contracts say.
_ANY_TIME = ("isolation", "network", "registry")


def specs(settings: Settings, role: str, *, fresh: bool = False) -> list[IsolationSpec]:
    """What the spawner is to load of a role; what the policy forbids is left out, with a word."""
    policy, make, found = policy_of(settings), contexts(settings, role), []
    for origin in discover(role, fresh=fresh):
        if role == "extension" and origin.name not in settings.extensions:
            continue
        try:
            policy.check(origin.distribution, origin.target)
        except LadingError as error:
            log.warning('%s "%s": %s', role, origin.name, error)
            continue
        context = make(origin.name)
        found.append(
            IsolationSpec(
                origin.name,
                origin.target,
                context.data,
                context.run,
                context.options,
                role,
                origin.distribution,
            )
        )
    return found


class Reloader:
    """Reloads backends of one daemon, one at a time."""

    def __init__(self, roles: Sequence[Backends[Any]], spawner: Spawner, wrappers: Sequence[Any]):
        self._roles = roles
        self._spawner = spawner
        self._wrappers = wrappers
        self._lock = threading.Lock()

    def reload(self, name: str, settings: Settings) -> None:
        """Take over what is installed under a name (``ROLE/NAME`` where it is two backends').

        Raises NotFound for a name that nothing offers, Unsupported for a backend that cannot be
        changed while the daemon runs, and what is wrong with the new version; the old one stays.
        """
        wanted, _, short = name.rpartition("/")
        with self._lock:
            found = [
                (role, offered[short])
                for role in self._roles
                if wanted in ("", role.role) and short in (offered := _offered(role.role))
            ]
            if not found:
                raise NotFound(f'no plugin "{name}" is installed')
            for role, origin in found:
                self._reload(role, origin, settings)

    def upgraded(self, settings: Settings) -> None:
        """Reload what has another version than the one that is loaded; failures are logged."""
        for role in self._roles:
            if role.role not in _ANY_TIME:
                continue
            for origin in _offered(role.role).values():
                known = role.loaded.get(origin.name)
                if known is not None and known.origin == origin:
                    continue
                try:
                    self.reload(f"{role.role}/{origin.name}", settings)
                except LadingError as error:
                    log.error('reload %s backend "%s": %s', role.role, origin.name, error)

    def _reload(self, role: Backends[Any], origin: Origin, settings: Settings) -> None:
        if role.role == "extension" or (role.role not in _ANY_TIME and origin.name in role.loaded):
            raise Unsupported(
                f'{role.role} "{origin.name}" cannot be changed while the daemon runs',
                hint="restart the daemon: containers go on meanwhile",
            )
        policy_of(settings).check(origin.distribution, origin.target)
        made = self._assembled(origin, settings)
        if role.role == "isolation":
            fresh = specs(settings, "isolation", fresh=True)
            self._spawner.replace(fresh, needed=origin.name)
        role.loaded[origin.name] = made
        role.failed.pop(origin.name, None)
        log.info(
            '%s backend "%s" is now of %s %s',
            role.role,
            origin.name,
            origin.distribution,
            origin.version,
        )

    def _assembled(self, origin: Origin, settings: Settings) -> Loaded[Any]:
        package = origin.target.partition(":")[0].partition(".")[0]
        try:
            with _imported_anew(package):
                context = contexts(settings, origin.role)(origin.name)
                return assemble(origin, context, self._wrappers)
        except LadingError:
            raise
        except Exception as error:
            reason = reason_of(error)
            raise LadingError(f'{origin.role} backend "{origin.name}": {reason}') from error


def _offered(role: str) -> dict[str, Origin]:
    """What is installed now, by name; of two distributions the first has it."""
    return {origin.name: origin for origin in reversed(discover(role, fresh=True))}


@contextmanager
def _imported_anew(package: str) -> Iterator[None]:
    """Let imports in the block read a package's files again; if it fails, the old one is back."""
    importlib.invalidate_caches()
    old = _taken_out(package)
    try:
        yield
    except BaseException:
        _taken_out(package)
        sys.modules.update(old)
        raise


def _taken_out(package: str) -> Mapping[str, ModuleType]:
    names = [n for n in sys.modules if n == package or n.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}
