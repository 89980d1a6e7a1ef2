"""The exit status on disk: ``run/exit.json``, written before anyone is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lading.monitor.launch import Exit

EXIT_FILE = "exit.json"


def write_exit(run: Path, status: Exit) -> None:
    """Write the status: it is there as a whole or not at all, whichever process is killed.

    It is not synced: the directory is for the life of the host (tmpfs), and so is the container.
    """
    temporary = f"{run}/.{EXIT_FILE}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, json.dumps(status.to_wire()).encode("ascii"))
    finally:
        os.close(descriptor)
    os.rename(temporary, f"{run}/{EXIT_FILE}")


def read_exit(run: Path) -> Exit | None:
    """How the last life of the container ended; None when no monitor has written it down.

    A file that cannot be read counts as none: a host that lost its power may leave that on a disk.
    """
    try:
        return Exit.from_wire(json.loads((run / EXIT_FILE).read_bytes()))
    except (FileNotFoundError, ValueError):
        return None
