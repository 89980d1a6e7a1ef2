"""What a container has changed: ``diff``, ``commit``, ``export``."""

from __future__ import annotations

import os
import sys

from lading.cli.command import between, command, exactly
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text, texts
from lading.cli.images.reference import parse
from lading.cli.streams.terminal import is_terminal
from lading.http.client import Response

KINDS = {0: "C", 1: "A", 2: "D"}


@command(
    "Show what a container changed on its disk",
    usage="CONTAINER",
    arguments=exactly(1),
    completes="containers",
)
def diff(call: Call) -> None:
    """Print a letter and a path for each change."""
    if not call.args[0]:
        raise Failure("Container name cannot be empty")
    for change in call.session.get(f"/containers/{call.args[0]}/changes") or []:
        call.session.print(f"{KINDS.get(change['Kind'], '?')} {change['Path']}")


@command(
    "Make an image of a container's changes",
    usage="[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    arguments=between(1, 2),
    flags=(
        text("author", "a", "Author, such as 'Name <address>'"),
        texts("change", "c", "Dockerfile instruction to apply"),
        text("message", "m", "Message for the history"),
        switch("pause", "p", "Freeze the container meanwhile", default=True),
    ),
    completes="containers",
)
def commit(call: Call) -> None:
    """Commit a container and print the image's id."""
    name = parse(call.args[1]) if len(call.args) > 1 else None
    if name and name.digest:
        raise Failure("refusing to create a tag with a digest reference")
    query = {
        "container": call.args[0],
        "repo": name.familiar if name else None,
        "tag": (name.tag or "latest") if name else None,
        "comment": call.text("message") or None,
        "author": call.text("author") or None,
        "changes": call.texts("change"),
        "pause": None if call.on("pause") else "0",
    }
    with call.session.request("POST", "/commit", query=query, json_body={}) as response:
        call.session.print(response.json()["Id"])


@command(
    "Write a container's files as a tar",
    usage="[OPTIONS] CONTAINER",
    arguments=exactly(1),
    flags=(text("output", "o", "Write to this file"),),
    completes="containers",
)
def export(call: Call) -> None:
    """Export a container's file system."""
    output = call.text("output")
    refuse_terminal(output)
    with call.session.request("GET", f"/containers/{call.args[0]}/export") as response:
        write_body(response, output)


def refuse_terminal(output: str) -> None:
    """A tar is nothing for a terminal; raises Failure."""
    if not output and is_terminal(1):
        raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    folder = os.path.dirname(output)
    if folder and not os.path.isdir(folder):
        raise Failure(f'invalid output path: directory "{folder}" does not exist')


def write_body(response: Response, output: str) -> None:
    """Write a body to a file, which appears when it is whole, or to standard output."""
    if not output:
        for data in response:
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if os.path.exists(output) and not os.path.isfile(output):
        with open(output, "wb") as file:
            file.writelines(response)
        return
    aside = f"{output}.{os.getpid()}.part"
    try:
        with open(aside, "wb") as file:
            file.writelines(response)
        os.replace(aside, output)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
