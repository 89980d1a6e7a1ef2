"""``lading version``."""

from __future__ import annotations

import platform
from typing import Any

from lading.cli.command import NONE, command
from lading.cli.errors import Failure
from lading.cli.flags import Call, text
from lading.cli.output.table import render
from lading.cli.session import NEWEST_API

DISTRIBUTION = "lading"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def own_version() -> str:
    """The version of this distribution."""
    from importlib.metadata import version as version_of  # late: takes 30 ms

    return version_of(DISTRIBUTION)


def one_line() -> str:
    """What ``lading --version`` prints."""
    return f"Lading version {own_version()}"


@command(
    "Show versions of client and daemon",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(text("format", "f", "Go template, or 'json'"),),
)
def version(call: Call) -> None:
    """Show what can be learnt, then fail if the daemon did not answer."""
    failure: Failure | None = None
    server: dict[str, Any] | None = None
    api = f"{NEWEST_API[0]}.{NEWEST_API[1]}"
    try:
        server = call.session.get("/version")
        api = "{}.{}".format(*call.session.api)
    except Failure as error:
        failure = error
    client = _client(api)
    if call.text("format"):
        render(call.text("format"), {"Client": client, "Server": server})
    else:
        for line in [*_client_lines(client), *(_server_lines(server) if server else [])]:
            call.session.print(line)
    if failure is not None:
        raise failure


def _client(api: str) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "Platform": {"Name": "Lading"},
        "Version": own_version(),
        "ApiVersion": api,
        "DefaultAPIVersion": f"{NEWEST_API[0]}.{NEWEST_API[1]}",
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": ARCHITECTURES.get(machine, machine),
        "BuildTime": "",
        "Context": "default",
    }


def _client_lines(client: dict[str, Any]) -> list[str]:
    return [
        "Client: Lading",
        f" Version:           {client['Version']}",
        f" API version:       {client['ApiVersion']}",
        f" Python version:    {client['PythonVersion']}",
        f" OS/Arch:           {client['Os']}/{client['Arch']}",
    ]


def _server_lines(server: dict[str, Any]) -> list[str]:
    name = (server.get("Platform") or {}).get("Name", "")
    lines = ["", f"Server: {name}".rstrip()]
    components = server.get("Components") or [
        {"Name": "Engine", "Version": server.get("Version", ""), "Details": server}
    ]
    for component in components:
        lines += [f" {component['Name']}:", f"  Version:          {component.get('Version', '')}"]
        details = component.get("Details") or {}
        if "ApiVersion" in details:
            least = details.get("MinAPIVersion", "")
            spoken = details["ApiVersion"] + (f" (minimum version {least})" if least else "")
            lines.append(f"  API version:      {spoken}")
        for key, title in (
            ("GoVersion", "Go version"),
            ("PythonVersion", "Python version"),
            ("GitCommit", "Git commit"),
            ("BuildTime", "Built"),
        ):
            if details.get(key):
                lines.append(f"  {title + ':':<18}{details[key]}")
        if details.get("Os"):
            lines.append(f"  OS/Arch:          {details['Os']}/{details.get('Arch', '')}")
        if details.get("KernelVersion"):
            lines.append(f"  Kernel:           {details['KernelVersion']}")
    return lines
