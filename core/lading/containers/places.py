"""A container's directory on tmpfs, with what is mounted on the host while it runs.

::

    <exec-root>/containers/<id>/
        state/          the isolation backend's
        shm/            a /dev/shm that other containers may share
        pins/<n>        parts of volumes and images, bind-mounted by descriptor
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lading.linux.mountpoints import unmount_all


def release(run: Path) -> None:
    """Unmount what is mounted there; may be repeated."""
    pins = run / "pins"
    for place in (run / "shm", *(sorted(pins.iterdir()) if pins.is_dir() else ())):
        unmount_all(place)


def discard(run: Path) -> None:
    """Remove the directory, and nothing that lies behind a mount in it."""
    release(run)
    shutil.rmtree(run, ignore_errors=True)


def pin(run: Path, directory: bool) -> Path:
    """A fresh mount point under ``pins``."""
    pins = run / "pins"
    pins.mkdir(mode=0o700, exist_ok=True)
    place = pins / str(len(list(pins.iterdir())))
    if directory:
        place.mkdir()
    else:
        place.touch()
    return place
