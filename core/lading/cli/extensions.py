"""Commands that installed extensions add to ``lading``.

Nothing is imported on the way to a command that Lading itself has: extensions are asked for a name
that is unknown, and for the help.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from lading.cli.commands import Table
from lading.hooks.common import Context

GROUP = "lading.extension"


def add_commands(table: Table) -> None:
    """Let each extension that has ``register_commands`` add to the table.

    One that fails is reported on standard error; the others go on.
    """
    nowhere = Path(os.devnull)  # the client has no state of the daemon's to offer
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            extension = entry.load()(Context(name=entry.name, data=nowhere, run=nowhere))
            register = getattr(extension, "register_commands", None)
            if register is not None:
                register(commands=table)
        except Exception as error:
            sys.stderr.write(f'WARNING: extension "{entry.name}": {error}\n')
