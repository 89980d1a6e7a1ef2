"""Filesystems in files, for tests that need a certain one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def loop_volume(
    kind: str, root: Path, *, options: str = "", size: int = 1 << 30, place: Path | None = None
) -> Iterator[Path]:
    """A new filesystem, mounted below ``root``, or at ``place``, for the time of the block.

    ``options`` are mount(8)'s. Skips, saying why, on a host that cannot make or mount it.
    """
    maker = f"mkfs.{kind}"
    if not shutil.which(maker):
        pytest.skip(f"no {maker} on this host")
    image, place = root / f"{kind}.image", place or root / kind
    with image.open("wb") as file:
        file.truncate(size)
    place.mkdir(parents=True)
    flags = ["-O", "quota,project"] if kind == "ext4" and "prjquota" in options else []
    subprocess.run([maker, "-q", *flags, image], check=True, capture_output=True)
    words = ",".join(filter(None, ("loop", options)))
    mounted = subprocess.run(
        ["mount", "-o", words, image, place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no {kind} with {words} on this host: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        image.unlink()
