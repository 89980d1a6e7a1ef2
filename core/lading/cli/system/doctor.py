"""``lading doctor``: what works on this host, why the rest does not, and how to mend it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from lading.cli.command import NONE, command
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, text
from lading.cli.output.table import aligned, render
from lading.cli.system.plugins import OFFLINE_FLAGS, settings_of

_MARKS = {"ok": "ok", "limited": "--", "missing": "no"}
_UNREACHABLE = "no daemon answers at {host}; this is what one started here would find"
_FOREIGN = "the daemon at {host} is not Lading's; this is what Lading's would find"


@command(
    "Tell what works on this host, and why not",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(*OFFLINE_FLAGS, text("format", "f", "'table', 'json', or a Go template")),
)
def doctor(call: Call) -> int:
    """Show the examination; exit status 0 when the configured defaults are usable, else 1."""
    found = _examine(call)
    layout = call.text("format")
    if layout in ("", "table"):
        call.session.out.write("\n".join(lines(found)) + "\n")
    else:
        render(layout, found)
    return 0 if found["Usable"] else 1


def _examine(call: Call) -> dict[str, Any]:
    if not call.on("offline"):
        try:
            answer: dict[str, Any] = call.session.get("/lading/doctor")
        except DaemonError as error:
            if error.status != 404:
                raise
            call.session.warn(_FOREIGN.format(host=call.session.host))
        except Failure:
            # A daemon that the user named is the one to ask.
            if call.session.host_given:
                raise
            call.session.warn(_UNREACHABLE.format(host=call.session.host))
        else:
            return {"Daemon": call.session.host, **answer}
    from lading.doctor import examination, loaded_here  # late, with all that loading takes

    # What fails is in the report; a second word about it would be in the way.
    logging.getLogger("lading").setLevel(logging.CRITICAL)
    with loaded_here(settings_of(call)) as roles:
        return {"Daemon": "", **examination(roles)}


def lines(found: dict[str, Any]) -> Iterable[str]:
    """The examination as text."""
    asked = found["Daemon"] or "no daemon"
    yield f"Lading {found['Version']}, asked: {asked}"
    for role in dict.fromkeys(row["Role"] for row in found["Plugins"]):
        yield f"\n{role.capitalize()}:"
        yield from _plugins([row for row in found["Plugins"] if row["Role"] == role])
    for title in ("Kernel", "Tools"):
        yield f"\n{title}:"
        yield from _findings(found[title])
    yield ""
    if found["Usable"]:
        yield "The configured defaults are usable."
    for problem in found["Problems"]:
        yield f"PROBLEM: {problem}"


def _plugins(rows: list[dict[str, Any]]) -> Iterable[str]:
    marks = {"usable": "ok", "unusable": "no", "failed": "no", "disabled": "--"}
    cells = [
        [
            f"  [{marks[row['Status']]}]",
            row["Name"] + (" (default)" if row["Default"] else ""),
            row["Version"] or "-",
            f"{row['Distribution']} {row['DistributionVersion']}, "
            f"contract {row['SpecVersion'] or '?'} of {row['SpokenVersion']}",
        ]
        for row in rows
    ]
    for head, row in zip(_aligned(cells), rows, strict=True):
        yield head
        if row["Capabilities"]:
            yield f"         can: {', '.join(row['Capabilities'])}"
        if row["MissingCapabilities"] and row["Status"] == "usable":
            yield f"         cannot: {', '.join(row['MissingCapabilities'])}"
        if row["Reason"]:
            yield f"         {row['Status']}: {row['Reason']}"
        if row["Remedy"]:
            wish = "enable" if row["Status"] == "disabled" else "mend"
            yield f"         to {wish} it: {row['Remedy']}"
        for warning in row["Warnings"]:
            yield f"         warning: {warning}"


def _findings(rows: list[dict[str, Any]]) -> Iterable[str]:
    cells = [
        [f"  [{_MARKS[row['Status']]}]", row["Name"], row["Value"] or row["Reason"]] for row in rows
    ]
    for head, row in zip(_aligned(cells), rows, strict=True):
        yield head
        if row["Value"] and row["Reason"]:
            yield f"         {row['Reason']}"
        if row["Remedy"]:
            yield f"         to mend it: {row['Remedy']}"


def _aligned(cells: list[list[str]]) -> list[str]:
    return aligned(cells, minimum=7, padding=2).splitlines()
