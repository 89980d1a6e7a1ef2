"""The exit status on disk: ``run/exit.json``, written before anyone is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lading.monitor.launch import Exit

EXIT_FILE = "exit.json"


def write_exit(run: Path, status: Exit) -> None:
    """Write the status durably: it is there as a whole or not at all, also after a crash."""
    temporary = run / f".{EXIT_FILE}.new"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump(status.to_wire(), file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, run / EXIT_FILE)
    directory = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_exit(run: Path) -> Exit | None:
    """How the last life of the container ended; None when no monitor has written it down."""
    try:
        wire = json.loads((run / EXIT_FILE).read_text("ascii"))
    except FileNotFoundError:
        return None
    return Exit.from_wire(wire)
