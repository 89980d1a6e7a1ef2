"""``lading history``."""

from __future__ import annotations

from lading.cli.command import command, exactly
from lading.cli.flags import Call, switch, text
from lading.cli.output.table import Columns, show_list
from lading.cli.output.units import ago, ellipsis, human_size, rfc3339, short_id

TABLE = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")


def columns(*, truncate: bool, human: bool) -> Columns:
    """The fields of a layer."""
    return Columns(
        "historyContext",
        {
            "Comment": ("COMMENT", lambda h: h.get("Comment") or ""),
            "CreatedAt": ("CREATED AT", lambda h: rfc3339(h["Created"])),
            "CreatedBy": (
                "CREATED BY",
                lambda h: _command(h.get("CreatedBy") or "", truncate),
            ),
            "CreatedSince": (
                "CREATED" if human else "CREATED AT",
                lambda h: _since(h["Created"]) if human else rfc3339(h["Created"]),
            ),
            "ID": ("IMAGE", lambda h: short_id(h["Id"]) if truncate else h["Id"]),
            "Size": ("SIZE", lambda h: human_size(h["Size"], 3) if human else str(h["Size"])),
        },
    )


def _since(created: int) -> str:
    return "N/A" if created <= 0 else ago(created)


def _command(text: str, truncate: bool) -> str:
    shown = text.replace("\t", " ")
    return ellipsis(shown, 45) if truncate else shown


@command(
    "Show the layers of an image",
    usage="[OPTIONS] IMAGE",
    arguments=exactly(1),
    flags=(
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        switch("human", "H", "Sizes and dates for people", default=True),
        switch("no-trunc", "", "Do not shorten anything"),
        text("platform", "", "Of this platform, os[/arch[/variant]]"),
        switch("quiet", "q", "Ids only"),
    ),
    completes="images",
)
def history(call: Call) -> None:
    """Show the history of an image."""
    show_list(
        columns(truncate=not call.on("no-trunc"), human=call.on("human")),
        call.session.get(f"/images/{call.args[0]}/history"),
        layout=call.text("format"),
        table=TABLE,
        quiet="ID" if call.on("quiet") else "",
    )
