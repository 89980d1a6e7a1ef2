"""``lading inspect`` and its relatives for one kind of object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lading.cli.command import Command, at_least, command
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, switch, text
from lading.cli.session import Session

if TYPE_CHECKING:
    from lading.cli.gotemplate import Template

Get = Callable[[Session, str, bool], Any]
BAD_TEMPLATE = 64

GETTERS: dict[str, Get] = {
    "container": lambda s, name, size: s.get(f"/containers/{name}/json", size=size),
    "image": lambda s, name, size: s.get(f"/images/{name}/json"),
    "network": lambda s, name, size: s.get(f"/networks/{name}"),
    "volume": lambda s, name, size: s.get(f"/volumes/{name}"),
    "plugin": lambda s, name, size: s.get(f"/plugins/{name}/json"),
}
FORMAT = text("format", "f", "Go template, or 'json'")
SIZE = switch("size", "s", "Show the size of a container's files")


@command(
    "Show all about any object",
    usage="[OPTIONS] NAME|ID [NAME|ID...]",
    arguments=at_least(1),
    flags=(FORMAT, SIZE, text("type", "", f"Kind of the object: {', '.join(GETTERS)}")),
    completes="containers",
)
def inspect(call: Call) -> int:
    """Inspect objects of any kind, the first kind that knows the name."""
    kind = call.text("type")
    if kind and kind not in GETTERS:
        raise Failure(f'"{kind}" is not a valid value for --type')
    kinds = [kind] if kind else list(GETTERS)
    return _show(call, kinds, size=call.on("size"))


def _command(kind: str, usage: str, completes: str) -> Command:
    flags = (FORMAT, SIZE) if kind == "container" else (FORMAT,)
    if kind == "network":
        flags = (*flags, switch("verbose", "v", "Show more"))
    if kind == "image":
        flags = (*flags, text("platform", "", "Of this platform, os[/arch[/variant]]"))

    def inspect_one(call: Call) -> int:
        return _show(call, [kind], size="size" in call.flag_names and call.on("size"))

    return command(
        f"Show all about {kind}s",
        usage=f"[OPTIONS] {usage} [{usage}...]",
        arguments=at_least(1),
        flags=flags,
        completes=completes,
    )(inspect_one)


container_inspect = _command("container", "CONTAINER", "containers")
image_inspect = _command("image", "IMAGE", "images")
network_inspect = _command("network", "NETWORK", "networks")
volume_inspect = _command("volume", "VOLUME", "volumes")


def _show(call: Call, kinds: Sequence[str], *, size: bool) -> int:
    """Print what is found, then say what is not; any miss ends in 1."""
    layout = call.text("format")
    template = _parsed(layout) if layout and layout != "json" else None
    found, failures = [], []
    for name in call.args:
        try:
            found.append(_find(call.session, kinds, name, size))
        except Failure as error:
            failures.append(error.message)
    _write(found, layout, template)
    for message in failures:
        call.session.warn(message)
    return 1 if failures else 0


def show_objects(found: list[Any], layout: str) -> None:
    """Print objects as ``inspect`` does: as JSON, or each by a template."""
    template = _parsed(layout) if layout and layout != "json" else None
    _write(found, layout, template)


def _find(session: Session, kinds: Sequence[str], name: str, size: bool) -> Any:
    for kind in kinds:
        try:
            return GETTERS[kind](session, name, size)
        except DaemonError as error:
            # A daemon that knows no plugins answers in its own ways; that is a miss as well.
            if error.status not in (404, 400, 501) or (error.status == 400 and len(kinds) == 1):
                raise
            if len(kinds) == 1:
                raise
    raise Failure(f"Error: No such object: {name}")


def _parsed(layout: str) -> Template:
    from lading.cli.gotemplate import Template, TemplateError  # late: JSON needs no templates

    try:
        return Template(layout)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", code=BAD_TEMPLATE) from error


def _write(found: list[Any], layout: str, template: Template | None) -> None:
    out = sys.stdout
    if template is not None:
        _write_rendered(found, template)
    elif layout == "json":
        out.write(json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n")
    elif not found:
        out.write("[]\n")
    else:
        out.write(json.dumps(found, indent=4, ensure_ascii=False) + "\n")


def _write_rendered(found: list[Any], template: Template) -> None:
    from lading.cli.gotemplate import TemplateError
    from lading.cli.output.zeros import with_zeros

    try:
        for item in found:
            sys.stdout.write(template.render(with_zeros(item)) + "\n")
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from error
