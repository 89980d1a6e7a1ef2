"""Images as files: ``import``, ``load``, ``save``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from lading.cli.command import NONE, at_least, between, command
from lading.cli.containers.changes import refuse_terminal, write_body
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text, texts
from lading.cli.images.reference import parse
from lading.cli.output.progress import Progress
from lading.cli.session import json_stream
from lading.cli.streams.terminal import is_terminal

CHUNK = 256 * 1024
TAR = {"Content-Type": "application/x-tar"}


@command(
    "Make an image of a root file system",
    usage="[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    arguments=between(1, 3),
    flags=(
        texts("change", "c", "Dockerfile instruction to apply"),
        text("message", "m", "Message for the history"),
        text("platform", "", "Platform of the image, os[/arch[/variant]]"),
    ),
)
def import_(call: Call) -> None:
    """Import a tar from a file, an address or stdin."""
    source = call.args[0]
    # Three arguments, repository and tag apart, are the form of 2013.
    name = ":".join(call.args[1:])
    query = {
        "fromSrc": source if "://" in source else "-",
        "repo": _checked(name),
        "changes": call.texts("change"),
        "message": call.text("message") or None,
        "platform": call.text("platform") or None,
    }
    if "://" in source:
        Progress(sys.stdout).show(call.session.stream("POST", "/images/create", query=query))
        return
    with _opened(source) as file:
        messages = call.session.stream(
            "POST", "/images/create", query=query, body=pieces(file), headers=TAR
        )
        Progress(sys.stdout).show(messages)


def _checked(name: str) -> str | None:
    if not name:
        return None
    parse(name)
    return name


def _opened(path: str) -> BinaryIO:
    if path == "-":
        return os.fdopen(os.dup(0), "rb", buffering=0)
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or str(error)).lower()}") from error


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file's content as it comes, also from a pipe."""
    while data := file.read(CHUNK):
        yield data


@command(
    "Load images from a tar archive",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        text("input", "i", "Read this file instead of stdin"),
        text("platform", "", "Only this platform, os[/arch[/variant]]"),
        switch("quiet", "q", "Do not show progress"),
    ),
)
def load(call: Call) -> None:
    """Load images, and print their names."""
    source = call.text("input")
    if not source and is_terminal(0):
        raise Failure("requested load from stdin, but stdin is empty")
    quiet = call.on("quiet") or not is_terminal(1)
    with _opened(source or "-") as file:
        response = call.session.request(
            "POST",
            "/images/load",
            query={"quiet": "1" if quiet else "0"},
            body=pieces(file),
            headers=TAR,
        )
        with response:
            if "json" in response.headers.get("content-type", ""):
                Progress(sys.stdout).show(json_stream(response))
            else:
                write_body(response, "")


@command(
    "Write images as a tar archive",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    arguments=at_least(1),
    flags=(
        text("output", "o", "Write to this file"),
        text("platform", "", "Only this platform, os[/arch[/variant]]"),
    ),
    completes="images",
)
def save(call: Call) -> None:
    """Save images with their names."""
    output = call.text("output")
    refuse_terminal(output)
    if len(call.args) == 1:
        path, query = f"/images/{call.args[0]}/get", {}
    else:
        path, query = "/images/get", {"names": call.args}
    with call.session.request("GET", path, query=query) as response:
        write_body(response, output)
