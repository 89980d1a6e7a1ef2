"""Completion: scripts for shells, and the names that the daemon knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem, get_completion_class

from lading.cli.command import command, exactly
from lading.cli.errors import Failure
from lading.cli.flags import Call
from lading.cli.session import Session
from lading.errors import LadingError

if TYPE_CHECKING:
    import click

SHELLS = ("bash", "zsh", "fish")


@command(
    "Print a completion script for a shell",
    usage="bash|zsh|fish",
    arguments=exactly(1),
)
def completion(call: Call) -> None:
    """Print what the shell shall evaluate."""
    from lading.cli.application import COMPLETION_VARIABLE, PROGRAM, Root
    from lading.cli.commands import Table

    shell = call.args[0]
    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise Failure(f'completion for "{shell}": valid shells are {", ".join(SHELLS)}')
    call.session.print(found(Root(Table()), {}, PROGRAM, COMPLETION_VARIABLE).source())


def complete_names(ctx: click.Context, kind: str, incomplete: str) -> list[CompletionItem[Any]]:
    """The names of one kind that begin so; none when the daemon does not answer."""
    session = ctx.obj
    if not kind or not isinstance(session, Session):
        return []
    try:
        names = _names(session, kind)
    except (Failure, LadingError, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(session: Session, kind: str) -> list[str]:
    if kind in ("containers", "running"):
        found = session.get("/containers/json", all=kind == "containers")
        return [name.removeprefix("/") for item in found for name in item.get("Names") or []]
    if kind == "images":
        tags = [tag for item in session.get("/images/json") for tag in item.get("RepoTags") or []]
        return [tag.removesuffix(":latest") for tag in tags if tag != "<none>:<none>"]
    if kind == "networks":
        return [network["Name"] for network in session.get("/networks")]
    return [volume["Name"] for volume in session.get("/volumes").get("Volumes") or []]
