"""All that ``lading doctor`` shows, as the JSON of ``GET /lading/doctor``."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lading import __version__, backends
from lading.backends import ROLES, Backends
from lading.choice import contexts, default_of, policy_of
from lading.config import Settings
from lading.doctor import tools
from lading.doctor.plugins import USABLE, PluginReport, plugin_reports
from lading.linux import features


def examination(roles: Sequence[Backends[Any]]) -> dict[str, Any]:
    """Everything about backends and host; ``Usable`` tells whether the defaults work."""
    reports = plugin_reports(roles)
    problems = _problems(reports, {role.role: role.default for role in roles})
    return {
        "Version": __version__,
        "Usable": not problems,
        "Problems": problems,
        "Plugins": msgspec.to_builtins(reports),
        "Kernel": msgspec.to_builtins(features.findings()),
        "Tools": msgspec.to_builtins(tools.findings()),
    }


def _problems(reports: Sequence[PluginReport], defaults: dict[str, str]) -> list[str]:
    """One sentence for each role whose default does not work."""
    found = []
    for role in ROLES:
        rows = [r for r in reports if r.role == role]
        default = defaults.get(role, "")
        if not default:
            if not any(r.status == USABLE for r in rows):
                found.append(f"no {role} backend is usable")
            continue
        chosen = next((r for r in rows if r.name == default), None)
        if chosen is None:
            found.append(f'the default {role} backend "{default}" is not installed')
        elif chosen.status != USABLE:
            found.append(f'the default {role} backend "{default}" is {chosen.status}')
    return found


@contextmanager
def loaded_here(settings: Settings) -> Iterator[list[Backends[Any]]]:
    """All installed backends, loaded by this process for the time of the block.

    They get directories of their own that go away again, on the filesystem of the data root where
    this user may write there: what a probe says depends on it.
    """
    with _scratch(Path(settings.data_root)) as root:
        aside = msgspec.structs.replace(
            settings, data_root=str(root / "data"), exec_root=str(root / "run")
        )
        policy = policy_of(settings)
        roles = [
            backends.load(
                role,
                contexts(aside, role),
                default=default_of(settings, role),
                only=(settings.extensions or ("",)) if role == "extension" else (),
                policy=policy,
            )
            for role in (*ROLES, "extension")
        ]
        for role in roles:
            _speak_of(role, str(root / "data"), settings.data_root)
        yield roles


def _speak_of(role: Backends[Any], aside: str, real: str) -> None:
    """Let what probes say name the data root, not the directory that stood for it."""
    for name, row in role.loaded.items():
        told = dataclasses.replace(
            row.probe,
            reason=row.probe.reason.replace(aside, real),
            remedy=row.probe.remedy.replace(aside, real),
        )
        role.loaded[name] = dataclasses.replace(row, probe=told)


@contextmanager
def _scratch(data_root: Path) -> Iterator[Path]:
    above = next(p for p in (data_root, *data_root.parents) if p.exists())
    place = above if above.is_dir() and os.access(above, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".lading-doctor-", dir=place) as root:
        yield Path(root)
