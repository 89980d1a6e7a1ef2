"""``lading images``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import between, command
from lading.cli.flags import Call, switch, text, texts
from lading.cli.output.table import Columns, api_filters, show_list
from lading.cli.output.units import ago, human_size, local_time, short_id

TABLE = ("Repository", "Tag", "ID", "CreatedSince", "Size")
WITH_DIGESTS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
NONE = "<none>"
Row = dict[str, Any]


def columns(*, truncate: bool) -> Columns:
    """The fields of a listed image: one row for each of its names."""
    return Columns(
        "imageContext",
        {
            "Containers": ("CONTAINERS", lambda i: _count(i.get("Containers", -1))),
            "CreatedAt": ("CREATED AT", lambda i: local_time(i["Created"])),
            "CreatedSince": ("CREATED", lambda i: _since(i["Created"])),
            "Digest": ("DIGEST", lambda i: i["digest"]),
            "ID": ("IMAGE ID", lambda i: short_id(i["Id"]) if truncate else i["Id"]),
            "Repository": ("REPOSITORY", lambda i: i["repository"]),
            "SharedSize": ("SHARED SIZE", lambda i: _size(i.get("SharedSize", -1))),
            "Size": ("SIZE", lambda i: human_size(i["Size"], 3)),
            "Tag": ("TAG", lambda i: i["tag"]),
            "UniqueSize": ("UNIQUE SIZE", _unique),
            "VirtualSize": ("SIZE", lambda i: human_size(i.get("VirtualSize") or i["Size"], 3)),
        },
    )


def _count(value: int) -> str:
    return "N/A" if value == -1 else str(value)


def _size(value: int) -> str:
    return "N/A" if value == -1 else human_size(value, 3)


def _unique(image: Row) -> str:
    shared = image.get("SharedSize", -1)
    return "N/A" if shared == -1 else human_size(image["Size"] - shared, 3)


def _since(created: int) -> str:
    # An image without a date (built to be reproducible) is no 50 years old.
    return "N/A" if created <= 0 else ago(created)


def rows(images: list[Row], *, digests: bool) -> list[Row]:
    """Rows for repository, tag and digest, as Docker pairs them."""
    found = []
    for image in images:
        tags = [t for t in image.get("RepoTags") or [] if t != f"{NONE}:{NONE}"]
        known = [d for d in image.get("RepoDigests") or [] if d != f"{NONE}@{NONE}"]
        by_name: dict[str, list[str]] = {}
        for reference in known:
            name, _, digest = reference.rpartition("@")
            by_name.setdefault(name, []).append(digest)
        tagged: set[str] = set()
        for reference in tags:
            name, _, tag = reference.rpartition(":")
            tagged.add(name)
            values = by_name.get(name, []) if digests else []
            for digest in values or [NONE]:
                found.append({**image, "repository": name, "tag": tag, "digest": digest})
        for name, values in by_name.items():
            if name not in tagged:
                for digest in values if digests else values[:1]:
                    found.append({**image, "repository": name, "tag": NONE, "digest": digest})
        if not tags and not known:
            found.append({**image, "repository": NONE, "tag": NONE, "digest": NONE})
    return found


@command(
    "List images",
    usage="[OPTIONS] [REPOSITORY[:TAG]]",
    arguments=between(0, 1),
    flags=(
        switch("all", "a", "Images of intermediate steps too"),
        switch("digests", "", "Show digests"),
        texts("filter", "f", "Only those that meet a condition (name=value)", kind="filter"),
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        switch("no-trunc", "", "Do not shorten anything"),
        switch("quiet", "q", "Ids only"),
    ),
    completes="images",
)
def images(call: Call) -> None:
    """List images."""
    filters = api_filters(call.texts("filter"))
    if call.args:
        filters.setdefault("reference", {})[call.args[0]] = True
    found = call.session.get("/images/json", all=call.on("all"), filters=filters)
    layout = call.text("format")
    if not layout and not call.on("quiet"):
        layout = call.session.settings.text("imagesFormat")
    digests = call.on("digests") or "{{.Digest}}" in layout
    listed = rows(found, digests=digests)
    if call.on("quiet"):
        # An image has one id, however many names.
        listed = (
            list({image["Id"]: image for image in listed}.values())
            if (not call.on("digests"))
            else listed
        )
    show_list(
        columns(truncate=not call.on("no-trunc")),
        listed,
        layout=layout,
        table=WITH_DIGESTS if call.on("digests") else TABLE,
        quiet="ID" if call.on("quiet") else "",
    )
