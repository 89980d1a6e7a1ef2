"""Build contexts for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_files(place: Path, files: Mapping[str, str]) -> None:
    """Write texts by their names relative to a directory, with the directories above them."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
