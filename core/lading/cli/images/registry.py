"""``lading pull`` and ``lading push``."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from lading.cli.command import command, exactly
from lading.cli.credentials import Credentials, header
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text
from lading.cli.images.reference import ImageName, parse
from lading.cli.output.progress import Progress, drain
from lading.cli.session import Session


def auth_header(session: Session, name: ImageName) -> dict[str, str]:
    """The header with the credentials of an image's registry."""
    auth = Credentials(session.settings).get(name.registry)
    return {"X-Registry-Auth": header(auth)} if auth else {}


def pull_image(
    session: Session, reference: str, *, platform: str = "", out: TextIO, quiet: bool = False
) -> None:
    """Pull one image (the tag ``latest`` unless another is named), showing progress on ``out``."""
    name = parse(reference)
    _pull(session, name, name.digest or name.tag or "latest", platform, out, quiet)


def _pull(
    session: Session, name: ImageName, tag: str, platform: str, out: TextIO, quiet: bool
) -> None:
    messages = session.stream(
        "POST",
        "/images/create",
        query={"fromImage": name.familiar, "tag": tag or None, "platform": platform or None},
        headers=auth_header(session, name),
    )
    if quiet:
        drain(messages)
    else:
        Progress(out).show(messages)


@command(
    "Get an image from a registry",
    usage="[OPTIONS] NAME[:TAG|@DIGEST]",
    arguments=exactly(1),
    flags=(
        switch("all-tags", "a", "All tags of the repository"),
        switch("disable-content-trust", "", "Accepted; images are not signed", default=True),
        text("platform", "", "Platform of the image, os[/arch[/variant]]"),
        switch("quiet", "q", "Print the image's name only"),
        text("tag", "t", "Tag to get", hidden=True),
    ),
    completes="images",
)
def pull(call: Call) -> None:
    """Pull an image."""
    name = parse(call.args[0])
    everything, quiet = call.on("all-tags"), call.on("quiet")
    if everything and (name.tag or name.digest):
        raise Failure("tag can't be used with --all-tags/-a")
    tag = name.digest or name.tag or call.text("tag")
    if not everything and not tag:
        tag = "latest"
        if not quiet:
            call.session.print("Using default tag: latest")
            sys.stdout.flush()
    _pull(call.session, name, "" if everything else tag, call.text("platform"), sys.stdout, quiet)
    separator = "@" if name.digest else ":"
    call.session.print(f"{name.domain}/{name.path}" + (f"{separator}{tag}" if tag else ""))


def _platform(text: str) -> str:
    """What the API wants for ``os/arch[/variant]``."""
    names = ("os", "architecture", "variant")
    return json.dumps(dict(zip(names, text.split("/"), strict=False)))


@command(
    "Send an image to a registry",
    usage="[OPTIONS] NAME[:TAG]",
    arguments=exactly(1),
    flags=(
        switch("all-tags", "a", "All tags of the repository"),
        switch("disable-content-trust", "", "Accepted; images are not signed", default=True),
        text("platform", "", "Only if the image is for this platform, os/arch[/variant]"),
        switch("quiet", "q", "Print the image's name only"),
    ),
    completes="images",
)
def push(call: Call) -> None:
    """Push an image."""
    name = parse(call.args[0])
    everything, quiet = call.on("all-tags"), call.on("quiet")
    if everything and name.tag:
        raise Failure("tag can't be used with --all-tags/-a")
    tag = name.tag
    if not everything and not tag:
        tag = "latest"
        if not quiet:
            call.session.print("Using default tag: latest")
            sys.stdout.flush()
    # The daemon refuses a push without the header, even an anonymous one.
    headers = auth_header(call.session, name) or {"X-Registry-Auth": header({})}
    messages = call.session.stream(
        "POST",
        f"/images/{name.familiar}/push",
        query={
            "tag": None if everything else tag,
            "platform": _platform(call.text("platform")) if call.text("platform") else None,
        },
        headers=headers,
    )
    if quiet:
        drain(messages)
        call.session.print(f"{name.domain}/{name.path}" + ("" if everything else f":{tag}"))
    else:
        Progress(sys.stdout).show(messages)
