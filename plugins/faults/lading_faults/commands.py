"""``lading faults``: put rules into force and take them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lading.cli.errors import DaemonError
from lading.cli.session import Session
from lading_faults.rules import ACTIONS, USUAL_ERROR, VICTIMS, WHEN, Rule


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def faults() -> None:
    """Let hooks of backends fail, by rule.

    The daemon must run with the extension: extensions = ["faults"].
    """


@faults.command()
@click.argument("action", type=click.Choice(ACTIONS))
@click.option("--role", help="Pattern: isolation, filesystem, network, registry")
@click.option("--backend", help="Pattern of names: overlay, native ...")
@click.option("--hook", help="Pattern of names: create, prepare ...")
@click.option("--when", type=click.Choice(WHEN), help="Before the hook (default) or after it")
@click.option("--nth", type=int, help="From the nth such call on (default: the first)")
@click.option("--times", type=int, help="So many times only (default: always)")
@click.option("--probability", type=float, help="With this probability (default: 1)")
@click.option("--seed", type=int, help="Seed of the probability: the same seed, the same calls")
@click.option("--error", help=f"fail: an errno (ENOSPC) or a kind of error ({USUAL_ERROR})")
@click.option("--message", help="fail: the text of the error")
@click.option("--seconds", type=float, help="delay: how long")
@click.option("--victim", type=click.Choice(VICTIMS), help="kill: the daemon, or who calls")
@click.pass_obj
def add(session: Session, /, action: str, **members: Any) -> None:
    """Put a rule into force and print its id.

    For instance: lading faults add fail --hook prepare --error ENOSPC --nth 3 --times 1
    """
    rule = {"action": action, **{k: v for k, v in members.items() if v is not None}}
    click.echo(_ask(session, "POST", body=rule)["id"])


@faults.command("ls")
@click.pass_obj
def list_(session: Session) -> None:
    """List the rules in force, with the number of calls that each has fitted."""
    rows = [("RULE", "FITTED", "WHAT")]
    for members in _ask(session, "GET"):
        fitted = members.pop("fitted")
        rows.append((members["id"], str(fitted), describe(Rule(**members))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@faults.command()
@click.argument("rules", nargs=-1, required=True, metavar="RULE...")
@click.pass_obj
def rm(session: Session, rules: Sequence[str]) -> None:
    """Take rules out of force."""
    for rule in rules:
        _ask(session, "DELETE", f"/{rule}")
        click.echo(rule)


@faults.command()
@click.pass_obj
def clear(session: Session) -> None:
    """Take all rules out of force."""
    _ask(session, "DELETE")


def describe(rule: Rule) -> str:
    """A rule in words: ``kill the daemon after isolation.create (native), from call 2 on``."""
    deed = {
        "fail": f"fail ({rule.error or USUAL_ERROR})",
        "delay": f"delay by {rule.seconds:g} s",
        "kill": f"kill the {rule.victim}",
    }[rule.action]
    text = f"{deed} {rule.when} {rule.role}.{rule.hook} ({rule.backend})"
    if rule.nth > 1:
        text += f", from call {rule.nth} on"
    if rule.times:
        text += f", {rule.times} times"
    if rule.probability < 1:
        text += f", with probability {rule.probability:g} (seed {rule.seed})"
    return text


def _ask(session: Session, method: str, path: str = "", body: object = None) -> Any:
    try:
        with session.request(method, f"/lading/faults{path}", json_body=body) as response:
            return response.json()
    except DaemonError as error:
        if error.status == 404 and error.reason == "page not found":
            message = 'the daemon runs without it: add "faults" to its extensions'
            raise click.ClickException(f"faults: {message}") from error
        raise
