"""``lading system df``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import NONE, command
from lading.cli.containers.listing import columns as container_columns
from lading.cli.flags import Call, switch, text
from lading.cli.images.listing import columns as image_columns
from lading.cli.images.listing import rows as image_rows
from lading.cli.output.table import Columns, show_list
from lading.cli.output.units import ago, human_size, short_id, unix_time
from lading.cli.volumes import columns as volume_columns

TABLE = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
Usage = dict[str, Any]


def columns() -> Columns:
    """The fields of a kind of object."""
    return Columns(
        "diskUsageContext",
        {
            "Active": ("ACTIVE", lambda u: str(u["active"])),
            "Reclaimable": ("RECLAIMABLE", _reclaimable),
            "Size": ("SIZE", lambda u: human_size(u["size"])),
            "TotalCount": ("TOTAL", lambda u: str(u["total"])),
            "Type": ("TYPE", lambda u: u["type"]),
        },
    )


def _reclaimable(usage: Usage) -> str:
    shown = human_size(usage["free"])
    if usage["size"] > 0 and usage["percent"]:
        return f"{shown} ({usage['free'] * 100 // usage['size']}%)"
    return shown


def summary(found: Usage) -> list[Usage]:
    """Totals by kind."""
    images = found.get("Images") or []
    containers = found.get("Containers") or []
    volumes = found.get("Volumes") or []
    cache = found.get("BuildCache") or []
    layers = found.get("LayersSize") or 0
    used = sum(
        image["Size"] - max(image.get("SharedSize", 0), 0)
        for image in images
        if image.get("Containers", 0) > 0
    )
    running = [c for c in containers if c.get("State") in ("running", "paused", "restarting")]
    stopped = sum(c.get("SizeRw") or 0 for c in containers if c not in running)
    volume_sizes = [(v.get("UsageData") or {}) for v in volumes]
    return [
        _row(
            "Images",
            len(images),
            sum(1 for image in images if image.get("Containers", 0) > 0),
            layers,
            max(layers - used, 0),
        ),
        _row(
            "Containers",
            len(containers),
            len(running),
            sum(c.get("SizeRw") or 0 for c in containers),
            stopped,
        ),
        _row(
            "Local Volumes",
            len(volumes),
            sum(1 for usage in volume_sizes if usage.get("RefCount", 0) > 0),
            sum(max(usage.get("Size", 0), 0) for usage in volume_sizes),
            sum(
                max(usage.get("Size", 0), 0)
                for usage in volume_sizes
                if usage.get("RefCount", 0) == 0
            ),
        ),
        _row(
            "Build Cache",
            len(cache),
            sum(1 for item in cache if item.get("InUse")),
            sum(item.get("Size", 0) for item in cache if not item.get("Shared")),
            sum(
                item.get("Size", 0)
                for item in cache
                if not item.get("InUse") and not item.get("Shared")
            ),
            percent=False,
        ),
    ]


def _row(
    kind: str, total: int, active: int, size: int, free: int, *, percent: bool = True
) -> Usage:
    return {
        "type": kind,
        "total": total,
        "active": active,
        "size": size,
        "free": free,
        "percent": percent,
    }


@command(
    "Show the disk space in use",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        switch("verbose", "v", "Show each object"),
    ),
)
def df(call: Call) -> None:
    """Show totals, or each object."""
    found = call.session.get("/system/df")
    if not call.on("verbose"):
        show_list(columns(), summary(found), layout=call.text("format"), table=TABLE)
        return
    say = call.session.print
    say("Images space usage:\n")
    show_list(
        image_columns(truncate=True),
        image_rows(found.get("Images") or [], digests=False),
        layout="",
        table=(
            *("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize"),
            *("UniqueSize", "Containers"),
        ),
    )
    say("\nContainers space usage:\n")
    show_list(
        container_columns(truncate=True),
        found.get("Containers") or [],
        layout="",
        table=("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"),
    )
    say("\nLocal Volumes space usage:\n")
    show_list(
        volume_columns(),
        found.get("Volumes") or [],
        layout="",
        table=("Name", "Links", "Size"),
    )
    say("\nBuild cache usage: " + human_size(summary(found)[3]["size"]) + "\n")
    show_list(
        _cache_columns(),
        found.get("BuildCache") or [],
        layout="",
        table=("ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"),
    )


def _cache_columns() -> Columns:
    def since(name: str) -> Any:
        return lambda item: ago(unix_time(item[name])) if item.get(name) else ""

    return Columns(
        "buildCacheContext",
        {
            "CacheType": ("CACHE TYPE", lambda b: b.get("Type", "")),
            "CreatedSince": ("CREATED", since("CreatedAt")),
            "ID": ("CACHE ID", lambda b: short_id(b["ID"])),
            "LastUsedSince": ("LAST USED", since("LastUsedAt")),
            "Shared": ("SHARED", lambda b: "true" if b.get("Shared") else "false"),
            "Size": ("SIZE", lambda b: human_size(b.get("Size", 0), 3)),
            "UsageCount": ("USAGE", lambda b: str(b.get("UsageCount", 0))),
        },
    )
