"""``lading events``."""

from __future__ import annotations

import sys
import time
from typing import Any

from lading.cli.command import NONE, command
from lading.cli.errors import Failure
from lading.cli.flags import Call, text, texts
from lading.cli.output.table import api_filters, render
from lading.cli.output.units import SECOND, timestamp


@command(
    "Watch what happens in the daemon",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        texts("filter", "f", "Only those that meet a condition (name=value)", kind="filter"),
        text("format", "", "Go template, or 'json'"),
        text("since", "", "From a time, or a duration such as 42m ago"),
        text("until", "", "Until a time, or a duration such as 42m ago"),
    ),
)
def events(call: Call) -> None:
    """Print events as they come."""
    try:
        since, until = timestamp(call.text("since")), timestamp(call.text("until"))
    except ValueError as error:
        raise Failure(str(error)) from error
    query = {
        "since": since or None,
        "until": until or None,
        "filters": api_filters(call.texts("filter")) or None,
    }
    layout = call.text("format")
    for event in call.session.stream("GET", "/events", query=query):
        if layout:
            render(layout, event)
        else:
            call.session.print(one_line(event))
        sys.stdout.flush()


def one_line(event: dict[str, Any]) -> str:
    """``2014-05-07T12:00:00.000000000+02:00 container start ID (image=busybox, ...)``."""
    nanoseconds = event.get("timeNano") or event.get("time", 0) * SECOND
    whole, rest = divmod(nanoseconds, SECOND)
    parts = time.localtime(whole)
    zone = time.strftime("%z", parts)
    shown_zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", parts) + f".{rest:09d}{shown_zone}"
    if not event.get("Type"):
        return f"{stamp} {event.get('id', '')}: {event.get('status', '')}"
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    shown = ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes))
    line = f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{line} ({shown})" if shown else line
