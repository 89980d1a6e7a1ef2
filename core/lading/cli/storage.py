"""``lading storage``: what filesystem backends hold."""

from __future__ import annotations

import sys

from lading.cli.command import at_least, command
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text
from lading.cli.output.progress import Progress


@command(
    "Move images and stopped containers to another file system backend",
    usage="[OPTIONS] [CONTAINER|IMAGE...]",
    arguments=at_least(0),
    flags=(
        switch("all", "a", "All images and containers"),
        text("to", "", "The backend; without it, the one that new containers get"),
    ),
    completes="containers",
)
def migrate(call: Call) -> None:
    """Migrate, and show how far it is."""
    if bool(call.args) == call.on("all"):
        raise Failure("name containers and images, or give --all")
    body = {"To": call.text("to"), "Names": list(call.args), "All": call.on("all")}
    messages = call.session.stream("POST", "/lading/storage/migrate", json_body=body)
    Progress(sys.stdout).show(messages)
