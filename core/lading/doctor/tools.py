"""Programs that the engine itself calls, and what does not work without them."""

from __future__ import annotations

import shutil

from lading.linux.features import MISSING, OK, Finding

#: What a backend needs its own probe tells.
PROGRAMS = {
    "ps": ("procps", "lading top"),
    "git": ("git", "lading build of a repository's address"),
}


def findings() -> list[Finding]:
    """One row per program."""
    rows = []
    for program, (package, use) in PROGRAMS.items():
        if path := shutil.which(program):
            rows.append(Finding(program, OK, path))
        else:
            reason = f'"{program}" is not installed: {use} does not work'
            rows.append(Finding(program, MISSING, "", reason, f"install {package}"))
    return rows
