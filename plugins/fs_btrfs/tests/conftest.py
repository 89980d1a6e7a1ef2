"""A btrfs filesystem in a file, where this host can make one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("no mkfs.btrfs on this host")
    root = tmp_path_factory.mktemp("btrfs")
    image, place = root / "image", root / "mnt"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    place.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no loop device with btrfs on this host: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
