"""``lading search``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import command, exactly
from lading.cli.credentials import Credentials, header
from lading.cli.flags import Call, number, switch, text, texts
from lading.cli.images.reference import parse
from lading.cli.output.table import Columns, api_filters, show_list
from lading.cli.output.units import ellipsis

TABLE = ("Name", "Description", "StarCount", "IsOfficial")


def columns(*, truncate: bool) -> Columns:
    """The fields of a result."""

    def description(result: dict[str, Any]) -> str:
        shown = (result.get("description") or "").replace("\n", " ").replace("\r", " ")
        return ellipsis(shown, 45) if truncate else shown

    return Columns(
        "searchContext",
        {
            "Description": ("DESCRIPTION", description),
            "IsAutomated": ("AUTOMATED", lambda r: "[OK]" if r.get("is_automated") else ""),
            "IsOfficial": ("OFFICIAL", lambda r: "[OK]" if r.get("is_official") else ""),
            "Name": ("NAME", lambda r: r["name"]),
            "StarCount": ("STARS", lambda r: str(r.get("star_count", 0))),
        },
    )


@command(
    "Search a registry for images",
    usage="[OPTIONS] TERM",
    arguments=exactly(1),
    flags=(
        switch("automated", "", "Only automated builds", hidden=True, aliases=("trusted", "t")),
        texts("filter", "f", "Only those that meet a condition (name=value)", kind="filter"),
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        number("limit", "", "At most so many results"),
        switch("no-trunc", "", "Do not shorten anything"),
        number("stars", "s", "At least so many stars", hidden=True),
    ),
)
def search(call: Call) -> None:
    """Search."""
    filters = api_filters(call.texts("filter"))
    if call.changed("stars"):
        filters.setdefault("stars", {})[str(call.number("stars"))] = True
    if call.on("automated"):
        filters.setdefault("is-automated", {})["true"] = True
    auth = Credentials(call.session.settings).get(parse(call.args[0]).registry)
    query = {
        "term": call.args[0],
        "limit": call.number("limit") or None,
        "filters": filters or None,
    }
    headers = {"X-Registry-Auth": header(auth)} if auth else {}
    with call.session.request("GET", "/images/search", query=query, headers=headers) as response:
        found = response.json() or []
    show_list(
        columns(truncate=not call.on("no-trunc")),
        sorted(found, key=lambda result: -result.get("star_count", 0)),
        layout=call.text("format"),
        table=TABLE,
    )
