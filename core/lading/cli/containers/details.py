"""``lading top`` and ``lading port``."""

from __future__ import annotations

from lading.cli.command import at_least, between, command
from lading.cli.errors import Failure
from lading.cli.flags import Call
from lading.cli.output.table import aligned


@command(
    "Show the processes of a container",
    usage="CONTAINER [ps OPTIONS]",
    arguments=at_least(1),
    interspersed=False,
    completes="running",
)
def top(call: Call) -> None:
    """Show a table of processes."""
    options = " ".join(call.args[1:])
    answer = call.session.get(f"/containers/{call.args[0]}/top", ps_args=options)
    rows = [answer["Titles"], *(answer["Processes"] or [])]
    call.session.out.write(aligned(rows, minimum=20))


@command(
    "Show the published ports of a container",
    usage="CONTAINER [PRIVATE_PORT[/PROTO]]",
    arguments=between(1, 2),
    completes="running",
)
def port(call: Call) -> None:
    """Show all published ports, or where one is published."""
    container = call.session.get(f"/containers/{call.args[0]}/json")
    ports: dict[str, list[dict[str, str]] | None] = container["NetworkSettings"].get("Ports") or {}
    if len(call.args) > 1:
        number, _, protocol = call.args[1].partition("/")
        wanted = f"{number}/{protocol or 'tcp'}"
        if not number.isdigit():
            raise Failure(f"invalid port: {call.args[1]}")
        bindings = ports.get(wanted)
        if not bindings:
            raise Failure(f"no public port '{wanted}' published for {call.args[0]}")
        for binding in bindings:
            call.session.print(_address(binding))
        return
    lines = [
        (inside, _address(binding))
        for inside, bindings in ports.items()
        for binding in bindings or []
    ]
    for inside, outside in sorted(lines, key=lambda line: (_number(line[0]), line[1])):
        call.session.print(f"{inside} -> {outside}")


def _number(inside: str) -> tuple[int, str]:
    number, _, protocol = inside.partition("/")
    return int(number), protocol


def _address(binding: dict[str, str]) -> str:
    address = binding.get("HostIp", "")
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{binding.get('HostPort', '')}"
