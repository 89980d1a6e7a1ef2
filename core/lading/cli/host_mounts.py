"""``lading mount`` and ``lading image mount``: images and containers at directories of the host."""

from __future__ import annotations

import os
from typing import Any

from lading.cli.command import at_least, between, command
from lading.cli.containers.lifecycle import each
from lading.cli.flags import Call, switch, text
from lading.cli.output.table import Columns, show_list

TABLE = ("Name", "Target", "Driver")
FORMAT = text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json', of the list")
FORCE = switch("force", "f", "Even while somebody is in there")


def columns() -> Columns:
    """The fields of a mount."""
    return Columns(
        "mountContext",
        {
            "Created": ("CREATED", lambda m: m["Created"]),
            "Driver": ("DRIVER", lambda m: m["Driver"]),
            "ID": ("ID", lambda m: m["Id"]),
            "Name": ("NAME", lambda m: m["Name"]),
            "Target": ("MOUNTED ON", lambda m: m["Target"]),
        },
        {},
    )


def _mount(call: Call, kind: str) -> None:
    if not call.args:
        found: list[dict[str, Any]] = call.session.get("/lading/mounts")
        shown = [row for row in found if row["Kind"] == kind]
        show_list(columns(), shown, layout=call.text("format"), table=TABLE, quiet="")
        return
    target = os.path.abspath(call.args[1]) if len(call.args) > 1 else ""
    made = call.session.post("/lading/mounts", {kind.capitalize(): call.args[0], "Target": target})
    call.session.print(made["Target"])


def _unmount(call: Call, kind: str) -> int:
    def act(name: str) -> str:
        call.session.delete("/lading/mounts", **{kind: name, "force": call.on("force")})
        return name

    return each(call.session, call.args, act)


@command(
    "Show a container's files, read-only, at a directory of the host; without one, list",
    usage="[OPTIONS] [CONTAINER [DIR]]",
    arguments=between(0, 2),
    flags=(FORMAT,),
    completes="containers",
)
def mount(call: Call) -> None:
    """Mount a container and print where."""
    _mount(call, "container")


@command(
    "End what mount has begun",
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    arguments=at_least(1),
    flags=(FORCE,),
    completes="containers",
)
def unmount(call: Call) -> int:
    """Unmount containers."""
    return _unmount(call, "container")


@command(
    "Show an image's files, read-only, at a directory of the host; without one, list",
    usage="[OPTIONS] [IMAGE [DIR]]",
    arguments=between(0, 2),
    flags=(FORMAT,),
    completes="images",
)
def image_mount(call: Call) -> None:
    """Mount an image and print where."""
    _mount(call, "image")


@command(
    "End what image mount has begun",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    arguments=at_least(1),
    flags=(FORCE,),
    completes="images",
)
def image_unmount(call: Call) -> int:
    """Unmount images."""
    return _unmount(call, "image")
