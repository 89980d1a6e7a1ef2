"""Build contexts for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest


def write_files(place: Path, files: Mapping[str, str]) -> None:
    """Write texts by their names relative to a directory, with the directories above them."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@dataclass(frozen=True)
class Ssh:
    """A key, and a context with this host's ``ssh-add``, whose keys ``step`` lists."""

    key: Path
    context: Path
    step: str = (
        "RUN --mount=type=ssh,required=true --mount=target=/host "
        "$(ls /host/ld-linux*) --library-path /host /host/ssh-add -l\n"
    )


def with_ssh(place: Path) -> Ssh:
    """In a new directory of ``place``; skips without the programs."""
    programs = ("/usr/bin/ssh-add", "/usr/bin/ssh-agent", "/usr/bin/ssh-keygen")
    if not all(os.access(p, os.X_OK) for p in programs):
        pytest.skip("openssh-client is not installed")
    made = Ssh(place / "key", place / "context")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.key)]
    subprocess.run(command, check=True)
    listed = subprocess.run(["ldd", programs[0]], capture_output=True, text=True, check=True)
    made.context.mkdir()
    for path in (programs[0], *(w for w in listed.stdout.split() if w.startswith("/"))):
        shutil.copy(path, made.context)
    return made
