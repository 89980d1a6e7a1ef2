"""``lading plugin new``."""

from __future__ import annotations

from pathlib import Path

from lading.cli.command import between, command
from lading.cli.flags import Call, text


@command(
    "Write a new plugin: a complete distribution with its tests",
    usage="[OPTIONS] ROLE NAME [DIRECTORY]",
    arguments=between(2, 3),
    flags=(text("author", "", "Who has the copyright"),),
)
def new(call: Call) -> None:
    """Write it, and say what comes next."""
    from lading.cli import scaffold  # late: reads package data

    role, name, *rest = call.args
    top = scaffold.new(role, name, Path(rest[0]) if rest else None, call.text("author"))
    call.session.print(f"{top}: a {role} plugin that works. What comes next:\n")
    call.session.print(f"    cd {top} && pip install -e .")
    call.session.print(f"    pytest --lading-plugin {name}")
    call.session.print(f"    lading plugin inspect --offline {name}")
