"""``lading ps``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import NONE, command
from lading.cli.flags import Call, number, switch, text, texts
from lading.cli.output.table import Columns, api_filters, show_list
from lading.cli.output.units import ago, ellipsis, human_size, local_time, short_id

TABLE = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def columns(*, truncate: bool) -> Columns:
    """The fields of a listed container."""
    return Columns(
        "ContainerContext",
        {
            "Command": ("COMMAND", lambda c: _command(c, truncate)),
            "CreatedAt": ("CREATED AT", lambda c: local_time(c["Created"])),
            "ID": ("CONTAINER ID", lambda c: short_id(c["Id"]) if truncate else c["Id"]),
            "Image": ("IMAGE", lambda c: _image(c, truncate)),
            "Labels": ("LABELS", lambda c: ",".join(f"{k}={v}" for k, v in _labels(c).items())),
            "LocalVolumes": ("LOCAL VOLUMES", _local_volumes),
            "Mounts": ("MOUNTS", lambda c: _mounts(c, truncate)),
            "Names": ("NAMES", lambda c: _names(c, truncate)),
            "Networks": ("NETWORKS", _networks),
            "Ports": ("PORTS", lambda c: ports(c.get("Ports") or [])),
            "RunningFor": ("CREATED", lambda c: ago(c["Created"])),
            "Size": ("SIZE", _size),
            "State": ("STATE", lambda c: c.get("State", "")),
            "Status": ("STATUS", lambda c: c.get("Status", "")),
        },
        {"Label": ("", lambda c: lambda name: _labels(c).get(name, ""))},
    )


def _labels(container: dict[str, Any]) -> dict[str, str]:
    return container.get("Labels") or {}


def _command(container: dict[str, Any], truncate: bool) -> str:
    shown = container.get("Command", "")
    # As Go's %q, the field is quoted; the text inside keeps its own quotes escaped.
    shown = ellipsis(shown, 20) if truncate else shown
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _image(container: dict[str, Any], truncate: bool) -> str:
    image: str = container.get("Image", "")
    if not image:
        return "<no image>"
    if truncate:
        bare = image.removeprefix("sha256:")
        if bare != image and len(bare) == 64:
            return bare[:12]
        name, at, _ = image.partition("@sha256:")
        return name if at else image
    return image


def _names(container: dict[str, Any], truncate: bool) -> str:
    names = [name.removeprefix("/") for name in container.get("Names") or []]
    if truncate:
        # A name with a slash is a link's alias.
        names = [name for name in names if "/" not in name] or names[:1]
    return ",".join(names)


def _local_volumes(container: dict[str, Any]) -> str:
    return str(sum(1 for m in container.get("Mounts") or [] if m.get("Driver") == "local"))


def _mounts(container: dict[str, Any], truncate: bool) -> str:
    names = [m.get("Name") or m.get("Source", "") for m in container.get("Mounts") or []]
    return ",".join(ellipsis(name, 15) if truncate else name for name in names)


def _networks(container: dict[str, Any]) -> str:
    return ",".join((container.get("NetworkSettings") or {}).get("Networks") or {})


def _size(container: dict[str, Any]) -> str:
    own = human_size(container.get("SizeRw") or 0, 3)
    whole = container.get("SizeRootFs") or 0
    return f"{own} (virtual {human_size(whole, 3)})" if whole > 0 else own


def ports(published: list[dict[str, Any]]) -> str:
    """``0.0.0.0:80->80/tcp, 8000-8001/udp``: neighbours are joined to ranges."""
    groups: dict[tuple[str, str, bool], list[tuple[int, int]]] = {}
    for port in sorted(published, key=_port_order):
        inside, outside = port["PrivatePort"], port.get("PublicPort") or 0
        protocol = port.get("Type", "tcp")
        if outside:
            address = port.get("IP", "")
            if inside != outside:
                # Only equal numbers join, as in Docker.
                pairs = groups.setdefault((address, f"{protocol}:{inside}", True), [])
            else:
                pairs = groups.setdefault((address, protocol, True), [])
        else:
            pairs = groups.setdefault(("", protocol, False), [])
        pairs.append((inside, outside))
    shown = []
    for (address, protocol, is_public), pairs in groups.items():
        shown += _ranges(address, protocol.partition(":")[0], is_public, pairs)
    return ", ".join(shown)


def _port_order(port: dict[str, Any]) -> tuple[Any, ...]:
    return (
        port.get("Type", ""),
        port["PrivatePort"],
        port.get("IP", ""),
        port.get("PublicPort") or 0,
    )


def _ranges(
    address: str, protocol: str, is_public: bool, pairs: list[tuple[int, int]]
) -> list[str]:
    runs: list[list[tuple[int, int]]] = []
    for pair in pairs:
        if runs and pair[0] == runs[-1][-1][0] + 1 and pair[0] != pair[1] - 1:
            runs[-1].append(pair)
        elif not runs or pair != runs[-1][-1]:
            runs.append([pair])
    shown = []
    for run in runs:
        first, last = run[0], run[-1]
        inside = f"{first[0]}-{last[0]}" if len(run) > 1 else str(first[0])
        outside = f"{first[1]}-{last[1]}" if len(run) > 1 else str(first[1])
        host = f"[{address}]" if ":" in address else address
        text = f"{host}:{outside}->{inside}" if is_public else inside
        shown.append(f"{text}/{protocol}")
    return shown


@command(
    "List containers",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        switch("all", "a", "Stopped ones too"),
        texts("filter", "f", "Only those that meet a condition (name=value)", kind="filter"),
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        number("last", "n", "The last so many that were made, in any state", default=-1),
        switch("latest", "l", "The last one that was made, in any state"),
        switch("no-trunc", "", "Do not shorten anything"),
        switch("quiet", "q", "Ids only"),
        switch("size", "s", "Show the size of the files"),
        text("since", "", "Made after this container", hidden=True, aliases=("since-id",)),
        text("before", "", "Made before this container", hidden=True, aliases=("before-id",)),
    ),
)
def ps(call: Call) -> None:
    """List containers."""
    filters = api_filters(call.texts("filter"))
    for name in ("since", "before"):
        if call.text(name):
            filters.setdefault(name, {})[call.text(name)] = True
    last = call.number("last")
    limit = 1 if call.on("latest") and last == -1 else last
    layout = call.text("format")
    if not layout and not call.on("quiet"):
        layout = call.session.settings.text("psFormat")
    # Sizes cost the daemon a walk over the files: only when something shows them.
    with_size = call.on("size") or ".Size" in layout or "json .}" in layout.replace(" }", "}")
    found = call.session.get(
        "/containers/json",
        all=call.on("all"),
        limit=limit if limit > 0 else None,
        size=with_size,
        filters=filters,
    )
    show_list(
        columns(truncate=not call.on("no-trunc")),
        found,
        layout=layout,
        table=(*TABLE, "Size") if call.on("size") else TABLE,
        quiet="ID" if call.on("quiet") else "",
    )
