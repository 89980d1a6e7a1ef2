"""Commands about volumes."""

from __future__ import annotations

from typing import Any

from lading.cli.command import NONE, at_least, between, command
from lading.cli.containers.lifecycle import each
from lading.cli.creation.environment import labels
from lading.cli.creation.values import pairs
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text, texts
from lading.cli.output.table import Columns, api_filters, show_list
from lading.cli.output.units import human_size

TABLE = ("Driver", "Name")
UNKNOWN = "N/A"


def columns() -> Columns:
    """The fields of a volume."""
    return Columns(
        "volumeContext",
        {
            "Availability": ("AVAILABILITY", lambda v: UNKNOWN),
            "Driver": ("DRIVER", lambda v: v["Driver"]),
            "Group": ("GROUP", lambda v: UNKNOWN),
            "Labels": ("LABELS", lambda v: ",".join(f"{k}={x}" for k, x in _labels(v).items())),
            "Links": ("LINKS", lambda v: _usage(v, "RefCount", str)),
            "Mountpoint": ("MOUNTPOINT", lambda v: v["Mountpoint"]),
            "Name": ("VOLUME NAME", lambda v: v["Name"]),
            "Scope": ("SCOPE", lambda v: v["Scope"]),
            "Size": ("SIZE", lambda v: _usage(v, "Size", human_size)),
            "Status": ("STATUS", lambda v: UNKNOWN),
        },
        {"Label": ("", lambda v: lambda name: _labels(v).get(name, ""))},
    )


def _labels(volume: dict[str, Any]) -> dict[str, str]:
    return volume.get("Labels") or {}


def _usage(volume: dict[str, Any], name: str, show: Any) -> str:
    usage = volume.get("UsageData")
    return str(show(usage[name])) if usage and usage.get(name, -1) != -1 else UNKNOWN


@command(
    "List volumes",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        texts("filter", "f", "Only those that meet a condition (name=value)", kind="filter"),
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        switch("quiet", "q", "Names only"),
    ),
)
def ls(call: Call) -> None:
    """List volumes by name."""
    answer = call.session.get("/volumes", filters=api_filters(call.texts("filter")))
    layout = call.text("format")
    if not layout and not call.on("quiet"):
        layout = call.session.settings.text("volumesFormat")
    show_list(
        columns(),
        sorted(answer.get("Volumes") or [], key=lambda volume: volume["Name"]),
        layout=layout,
        table=TABLE,
        quiet="Name" if call.on("quiet") else "",
    )


@command(
    "Make a volume",
    usage="[OPTIONS] [VOLUME]",
    arguments=between(0, 1),
    flags=(
        text("driver", "d", "Driver of the volume", default="local"),
        texts("label", "", "Label (key=value)"),
        text("name", "", "Name of the volume", hidden=True),
        texts("opt", "o", "Option of the driver (key=value)", kind="map"),
    ),
)
def create(call: Call) -> None:
    """Create a volume and print its name."""
    if call.args and call.text("name"):
        raise Failure(
            "conflicting options: either specify --name or provide positional arg, not both"
        )
    body = {
        "Name": call.args[0] if call.args else call.text("name"),
        "Driver": call.text("driver"),
        "DriverOpts": pairs(call.texts("opt")),
        "Labels": labels([], call.texts("label")),
    }
    call.session.print(call.session.post("/volumes/create", body)["Name"])


@command(
    "Remove volumes",
    usage="[OPTIONS] VOLUME [VOLUME...]",
    arguments=at_least(1),
    flags=(switch("force", "f", "Do not mind one that does not exist"),),
    completes="volumes",
)
def rm(call: Call) -> int:
    """Remove volumes."""

    def act(name: str) -> str:
        call.session.delete(f"/volumes/{name}", force=call.on("force"))
        return name

    return each(call.session, call.args, act)
