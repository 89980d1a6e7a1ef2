"""``lading plugin ls`` and ``lading plugin inspect``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lading.cli.command import NONE, at_least, command
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, switch, text
from lading.cli.inspection import show_objects
from lading.cli.output.table import Columns, show_list

NOT_LADING = "the daemon at {host} is not Lading's: it knows nothing of plugins"

OFFLINE_FLAGS = (
    switch("offline", "", "Ask no daemon: load what is installed here for the time of the look"),
    text("config-file", "", "Configuration to go by, with --offline", kind="file"),
)


def _distribution(row: dict[str, Any]) -> str:
    return f"{row['Distribution']} {row['DistributionVersion']}".strip()


COLUMNS = Columns(
    "pluginContext",
    {
        "Role": ("ROLE", lambda row: row["Role"]),
        "Name": ("NAME", lambda row: row["Name"]),
        "Default": ("DEFAULT", lambda row: "*" if row["Default"] else ""),
        "Status": ("STATUS", lambda row: row["Status"]),
        "Version": ("VERSION", lambda row: row["Version"]),
        "SpecVersion": ("SPEC", lambda row: row["SpecVersion"] or "?"),
        "Distribution": ("DISTRIBUTION", _distribution),
        "Capabilities": ("CAPABILITIES", lambda row: ",".join(row["Capabilities"])),
        "Reason": ("REASON", lambda row: row["Reason"]),
        "Remedy": ("REMEDY", lambda row: row["Remedy"]),
    },
)
TABLE = ("Role", "Name", "Default", "Status", "Version", "SpecVersion", "Distribution")


def settings_of(call: Call) -> Any:
    """The configuration that a daemon started here would have."""
    from lading import config  # late: only without a daemon

    given = call.text("config-file")
    return config.load({}, Path(given) if given else None).settings


def reports(call: Call) -> list[dict[str, Any]]:
    """What the daemon, or with ``--offline`` this process, knows of plugins."""
    if call.on("offline"):
        import msgspec  # late, with all that loading takes

        from lading.doctor import loaded_here, plugin_reports

        # What fails is in the report; a second word about it would be in the way.
        logging.getLogger("lading").setLevel(logging.CRITICAL)
        with loaded_here(settings_of(call)) as roles:
            found: list[dict[str, Any]] = msgspec.to_builtins(plugin_reports(roles))
        return found
    try:
        answer: list[dict[str, Any]] = call.session.get("/lading/plugins")
    except DaemonError as error:
        if error.status == 404:
            raise Failure(NOT_LADING.format(host=call.session.host)) from error
        raise
    return answer


@command(
    "List backends and extensions",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        *OFFLINE_FLAGS,
        text("format", "", "Format as 'table', 'json' or by a Go template"),
        text("role", "", "Only of this role"),
        switch("quiet", "q", "Only print names"),
    ),
)
def ls(call: Call) -> None:
    """List what is installed, usable or not."""
    rows = reports(call)
    if role := call.text("role"):
        rows = [row for row in rows if row["Role"] == role]
    quiet = "Name" if call.on("quiet") else ""
    show_list(COLUMNS, rows, layout=call.text("format"), table=TABLE, quiet=quiet)


@command(
    "Show all about backends and extensions",
    usage="[OPTIONS] [ROLE/]NAME [[ROLE/]NAME...]",
    arguments=at_least(1),
    flags=(*OFFLINE_FLAGS, text("format", "f", "Go template, or 'json'")),
)
def inspect(call: Call) -> int:
    """Show the plugins of these names, of whatever role."""
    known = reports(call)
    found: list[dict[str, Any]] = []
    missing = []
    for word in call.args:
        role, _, name = word.rpartition("/")
        rows = [r for r in known if r["Name"] == name and role in ("", r["Role"])]
        found += rows
        if not rows:
            missing.append(f'no plugin "{word}" is installed')
    show_objects(found, call.text("format"))
    for line in missing:
        call.session.warn(f"Error: {line}")
    return 1 if missing else 0


@command(
    "Take over new versions of backends that were installed while the daemon runs",
    usage="[ROLE/]NAME [[ROLE/]NAME...]",
    arguments=at_least(1),
)
def reload(call: Call) -> int:
    """Containers that run keep the code that they were started with."""
    failed = False
    for word in call.args:
        role, _, name = word.rpartition("/")
        try:
            call.session.post(f"/lading/plugins/{name}/reload", role=role)
        except Failure as error:
            call.session.warn(error.message)
            failed = True
        else:
            call.session.print(word)
    return 1 if failed else 0
