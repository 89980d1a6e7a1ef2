"""Programs that must succeed, and pip as a plugin's user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a program writes to its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip_install(site: Path, *sources: Path) -> Path:
    """Distributions of these sources in a directory for PYTHONPATH, made without an index."""
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target"]
    run(*pip, site, *sources, cwd=site.parent)
    return site
