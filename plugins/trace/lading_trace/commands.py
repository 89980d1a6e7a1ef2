"""``lading trace``: switch the recording, look at what was recorded."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from lading.cli.errors import DaemonError
from lading.cli.session import Session
from lading_trace.waterfall import drawn, label, milliseconds, title


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def trace() -> None:
    """See how long the hooks of backends take.

    The daemon must run with the extension: extensions = ["trace"].
    """


@trace.command()
@click.pass_obj
def start(session: Session) -> None:
    """Record operations from now on."""
    _ask(session, "POST", "/start")


@trace.command()
@click.pass_obj
def stop(session: Session) -> None:
    """Record no more; what was recorded stays."""
    _ask(session, "POST", "/stop")


@trace.command()
@click.pass_obj
def clear(session: Session) -> None:
    """Forget what was recorded."""
    _ask(session, "DELETE")


@trace.command("ls")
@click.pass_obj
def list_(session: Session) -> None:
    """List the recorded operations, oldest first."""
    rows = [("OPERATION", "BEGAN", "TOOK", "HOOKS", "NAME")]
    for operation in _recorded(session):
        began = datetime.fromtimestamp(operation["began"] / 1e9).strftime("%H:%M:%S.%f")[:-3]
        rows.append(
            (
                operation["id"][:12],
                began,
                milliseconds(operation["took"]),
                str(len(operation["spans"])),
                title(operation) + (f"  ({operation['error']})" if operation["error"] else ""),
            )
        )
    _print(rows)


_format = click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json", "svg"]),
    default="table",
    show_default=True,
    help="Rows of text, raw numbers, or a waterfall picture",
)
_output = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead"
)


@trace.command()
@click.argument("operation", default="")
@click.option("--last", default=0, metavar="N", help="The last N operations (default: 1)")
@_format
@_output
@click.pass_obj
def show(session: Session, operation: str, last: int, kind: str, output: Path | None) -> None:
    """Show the hook calls of an operation, or of all of one trace.

    OPERATION is the beginning of an operation's or trace's id; without one the last is shown.
    """
    if last < 0 or (operation and last):
        raise click.UsageError("give either an operation or a positive --last")
    query = {"id": operation} if operation else {"last": last or 1}
    found = _recorded(session, **query)
    if not found:
        what = f'no operation "{operation}"' if operation else "nothing"
        raise click.ClickException(f"{what} is recorded")
    _write(found, kind, output)


@trace.command(context_settings={"ignore_unknown_options": True})
@_format
@_output
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(session: Session, kind: str, output: Path | None, command: Sequence[str]) -> int:
    """Run a command of lading's, then show the hooks that the daemon has called for it.

    For instance: lading trace run -o run.svg --format svg lading run --rm busybox true
    """
    identity = os.urandom(16).hex()
    parent = f"00-{identity}-{os.urandom(8).hex()}-01"
    environment = {**os.environ, "LADING_HOST": session.host, "TRACEPARENT": parent}
    try:
        code = subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise click.ClickException(f"{command[0]}: {error.strerror}") from error
    found = _recorded(session, id=identity)
    if found:
        _write(found, kind, output)
    else:
        click.echo("trace: the command led to no call of a hook that was recorded", err=True)
    return code if code >= 0 else 128 - code


def _recorded(session: Session, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _ask(session, "GET", **query)["operations"]
    return found


def _ask(session: Session, method: str, path: str = "", **query: Any) -> Any:
    try:
        with session.request(method, f"/lading/trace{path}", query=query) as response:
            return response.json()
    except DaemonError as error:
        if error.status == 404:
            message = 'the daemon runs without it: add "trace" to its extensions'
            raise click.ClickException(f"trace: {message}") from error
        raise


def _write(operations: Sequence[Mapping[str, Any]], kind: str, output: Path | None) -> None:
    if kind == "json":
        text = json.dumps(operations, indent=2) + "\n"
    elif kind == "svg":
        text = drawn(operations)
    else:
        text = table(operations)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


def table(operations: Sequence[Mapping[str, Any]]) -> str:
    """Each call with its begin within the operation, and how much of this the hooks took."""
    lines = []
    for operation in operations:
        failed = f"  failed: {operation['error']}" if operation["error"] else ""
        lines.append(f"{title(operation)}  {milliseconds(operation['took'])}{failed}")
        rows = [("  AT", "TOOK", "HOOK", "ABOUT")]
        for span in operation["spans"]:
            about = span["error"] or " ".join(_short(v) for v in span["attributes"].values())
            at = milliseconds(span["began"] - operation["began"])
            rows.append((f"  {at}", milliseconds(span["took"]), label(span), about))
        lines += _aligned(rows)
        lines.append("")
    return "\n".join(lines)


def _short(value: str) -> str:
    return value if len(value) < 40 else value[:19] + "…"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _print(rows: Sequence[Sequence[str]]) -> None:
    for line in _aligned(rows):
        click.echo(line)
