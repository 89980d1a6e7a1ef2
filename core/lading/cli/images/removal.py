"""Names of images: ``lading tag`` and ``lading rmi``."""

from __future__ import annotations

from lading.cli.command import at_least, command, exactly
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, switch, texts
from lading.cli.images.reference import parse


@command(
    "Give an image another name",
    usage="SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    arguments=exactly(2),
    flags=(switch("force", "f", "Accepted; a tag always moves", hidden=True),),
    completes="images",
)
def tag(call: Call) -> None:
    """Tag an image."""
    source, target = call.args
    name = parse(target)
    if name.digest:
        raise Failure("refusing to create a tag with a digest reference")
    call.session.post(f"/images/{source}/tag", repo=name.familiar, tag=name.tag or "latest")


@command(
    "Remove images",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    arguments=at_least(1),
    flags=(
        switch("force", "f", "Even when several names or stopped containers refer to it"),
        switch("no-prune", "", "Keep its untagged parents"),
        texts("platform", "", "Only this platform of it, os[/arch[/variant]]"),
    ),
    completes="images",
)
def rmi(call: Call) -> int:
    """Remove images and print what went."""
    failures, fatal = [], False
    for name in call.args:
        try:
            gone = call.session.delete(
                f"/images/{name}", force=call.on("force"), noprune=call.on("no-prune")
            )
        except DaemonError as error:
            fatal = fatal or error.status != 404
            failures.append(error.message)
            continue
        for item in gone or []:
            for what in ("Untagged", "Deleted"):
                if item.get(what):
                    call.session.print(f"{what}: {item[what]}")
    if not failures:
        return 0
    # With --force a missing image is what was wanted.
    if fatal or not call.on("force"):
        raise Failure("\n".join(failures))
    call.session.warn("\n".join(failures))
    return 0
