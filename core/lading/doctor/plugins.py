"""Backends and extensions as rows: where each is from, whether it works here, what it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import msgspec

from lading.backends import Backends, Failed, Loaded, Origin, discover

USABLE, UNUSABLE, FAILED, DISABLED = "usable", "unusable", "failed", "disabled"


class PluginReport(msgspec.Struct, frozen=True, rename="pascal"):
    """One plugin.

    ``status`` is ``usable``, ``unusable`` (the host lacks something), ``failed`` (it was not
    loaded) or ``disabled`` (an extension that the configuration does not name); ``reason`` says
    why in one sentence, ``remedy`` how to mend it. ``version`` is of the mechanism (kernel
    feature, library, binary), ``spec_version`` the one of the contract that it was written for (0:
    unknown), ``spoken_version`` the newest that this Lading speaks.
    """

    role: str
    name: str
    status: str
    default: bool = False
    reason: str = ""
    remedy: str = ""
    version: str = ""
    distribution: str = ""
    distribution_version: str = ""
    entry_point: str = ""
    spec_version: int = 0
    spoken_version: int = 0
    capabilities: list[str] = []
    missing_capabilities: list[str] = []
    details: dict[str, str] = {}
    warnings: list[str] = []


def plugin_reports(roles: Sequence[Backends[Any]]) -> list[PluginReport]:
    """All plugins of these roles, by name, the default of each role first."""
    found = []
    for role in roles:
        rows = [_of_loaded(row, role.default) for row in role.loaded.values()]
        rows += [_of_failed(row, role.default) for row in role.failed.values()]
        known = {row.name for row in rows}
        if role.role == "extension":
            rows += [_disabled(o) for o in discover(role.role) if o.name not in known]
        found += sorted(rows, key=lambda row: (not row.default, row.name))
    return found


def _common(origin: Origin, default: str) -> dict[str, Any]:
    return {
        "role": origin.role,
        "name": origin.name,
        "default": origin.name == default,
        "distribution": origin.distribution,
        "distribution_version": origin.version,
        "entry_point": origin.target,
        "spoken_version": _contract(origin.role).SPEC_VERSION,
    }


def _of_loaded(row: Loaded[Any], default: str) -> PluginReport:
    probe = row.probe
    can = row.capabilities
    known: Mapping[str, str] = _contract(row.origin.role).CAPABILITIES
    return PluginReport(
        status=USABLE if probe.usable else UNUSABLE,
        reason=probe.reason,
        remedy=probe.remedy,
        version=probe.version,
        spec_version=row.spec_version,
        capabilities=sorted(can),
        missing_capabilities=sorted(set(known) - can),
        details={str(k): str(v) for k, v in probe.details.items()},
        warnings=[str(w) for w in probe.warnings],
        **_common(row.origin, default),
    )


def _of_failed(row: Failed, default: str) -> PluginReport:
    return PluginReport(
        status=FAILED,
        reason=row.reason,
        remedy=row.remedy,
        **_common(row.origin, default),
    )


def _disabled(origin: Origin) -> PluginReport:
    return PluginReport(
        status=DISABLED,
        reason="the configuration does not name it",
        remedy=f'add it to the key "extensions": extensions = ["{origin.name}"]',
        **_common(origin, ""),
    )


def _contract(role: str) -> Any:
    return import_module(f"lading.hooks.{role}")
