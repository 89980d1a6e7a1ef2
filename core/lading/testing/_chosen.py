"""The backend that ``pytest --lading-plugin NAME`` was asked for."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from lading.backends import ROLES, Origin, discover
from lading.hooks.registry import Remote


@dataclass(frozen=True)
class Chosen:
    """An installed plugin, its options, and for a transport the repository to test it on."""

    origin: Origin
    options: dict[str, Any]
    remote: Remote

    @property
    def maker(self) -> Any:
        """The callable that its entry point names."""
        module, _, attribute = self.origin.target.partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found


#: Set before the kit's module is imported.
chosen: Chosen | None = None


def choose(name: str, options: Sequence[str], remote: str, *, insecure: bool) -> Chosen:
    """Find a plugin by ``NAME`` or ``ROLE/NAME``; raises pytest.UsageError listing the known."""
    global chosen
    role, _, short = name.rpartition("/")
    known = [origin for r in (*ROLES, "extension") for origin in discover(r)]
    found = [o for o in known if o.name == short and role in ("", o.role)]
    if not found:
        names = ", ".join(f"{o.role}/{o.name}" for o in known) or "none"
        raise pytest.UsageError(f'no lading plugin "{name}" is installed; installed: {names}')
    if len({o.role for o in found}) > 1:
        names = " or ".join(f"{o.role}/{o.name}" for o in found)
        raise pytest.UsageError(f'several plugins are named "{name}": say {names}')
    host, _, repository = remote.partition("/")
    place = Remote(host, repository or "kit/empty", insecure=insecure)
    chosen = Chosen(found[0], dict(map(_option, options)), place)
    return chosen


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise pytest.UsageError(f'--lading-option "{text}": not of the form KEY=VALUE')
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
