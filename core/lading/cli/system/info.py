"""``lading info``."""

from __future__ import annotations

import sys
from typing import Any

from lading.cli.command import NONE, command
from lading.cli.errors import Failure
from lading.cli.flags import Call, text
from lading.cli.output.table import render
from lading.cli.output.units import binary_size
from lading.cli.system.version import own_version


@command(
    "Show the daemon's state and its host",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(text("format", "f", "Go template, or 'json'"),),
)
def info(call: Call) -> None:
    """Show all that the daemon tells about itself."""
    client = {"Debug": call.session.debug, "Context": "default", "Version": own_version()}
    failure: Failure | None = None
    try:
        found = call.session.get("/info")
    except Failure as error:
        found, failure = {}, error
    if call.text("format"):
        if failure is not None:
            raise failure
        render(call.text("format"), {**found, "ClientInfo": client})
        return
    out = sys.stdout
    out.write(f"Client: Lading\n Version:    {client['Version']}\n")
    out.write(f" Debug Mode: {_word(client['Debug'])}\n\nServer:\n")
    if failure is not None:
        out.flush()
        raise Failure(f"ERROR: {failure.message}\nerrors pretty printing info")
    for line in lines(found):
        out.write(f" {line}\n")
    for warning in found.get("Warnings") or []:
        call.session.warn(warning)


def _word(value: Any) -> str:
    return "true" if value else "false"


def lines(found: dict[str, Any]) -> list[str]:
    """The daemon's answer as rows."""
    shown = [f"Containers: {found.get('Containers', 0)}"]
    for state in ("Running", "Paused", "Stopped"):
        shown.append(f" {state}: {found.get(f'Containers{state}', 0)}")
    shown.append(f"Images: {found.get('Images', 0)}")
    shown += _texts(found, ("ServerVersion", "Server Version"), ("Driver", "Storage Driver"))
    shown += [f" {name}: {value}" for name, value in found.get("DriverStatus") or []]
    shown += _texts(
        found,
        ("ExecutionDriver", "Execution Driver"),
        ("LoggingDriver", "Logging Driver"),
        ("CgroupDriver", "Cgroup Driver"),
        ("CgroupVersion", "Cgroup Version"),
    )
    plugins = found.get("Plugins") or {}
    shown.append("Plugins:")
    for kind in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(kind):
            shown.append(f" {kind}: {' '.join(plugins[kind])}")
    runtimes = found.get("Runtimes") or {}
    if runtimes:
        shown.append(f"Runtimes: {' '.join(sorted(runtimes))}")
        shown += _texts(found, ("DefaultRuntime", "Default Runtime"))
    shown += _texts(found, ("InitBinary", "Init Binary"))
    shown += _backends(found)
    shown += _security(found)
    shown += _host(found)
    return shown + _end(found)


def _texts(found: dict[str, Any], *rows: tuple[str, str]) -> list[str]:
    return [f"{title}: {found[key]}" for key, title in rows if found.get(key)]


def _backends(found: dict[str, Any]) -> list[str]:
    """What of Lading's own a daemon of Lading tells; Docker's tells nothing."""
    plugins = (found.get("Lading") or {}).get("Plugins") or []
    if not plugins:
        return []
    shown = ["Backends:"]
    for role in dict.fromkeys(row["Role"] for row in plugins):
        names = [
            row["Name"] + ("" if row["Status"] == "usable" else f" ({row['Status']})")
            for row in plugins
            if row["Role"] == role
        ]
        shown.append(f" {role.capitalize()}: {' '.join(names)}")
    return shown


def _security(found: dict[str, Any]) -> list[str]:
    options = found.get("SecurityOptions") or []
    if not options:
        return []
    shown = ["Security Options:"]
    for option in options:
        table = [part.partition("=")[::2] for part in option.split(",")]
        for key, value in table:
            shown.append(f" {value}" if key == "name" else f"  {key.capitalize()}: {value}")
    return shown


def _host(found: dict[str, Any]) -> list[str]:
    shown = _texts(
        found,
        ("KernelVersion", "Kernel Version"),
        ("OperatingSystem", "Operating System"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    )
    shown.append(f"CPUs: {found.get('NCPU', 0)}")
    shown.append(f"Total Memory: {binary_size(found.get('MemTotal', 0))}")
    return shown + _texts(
        found, ("Name", "Name"), ("ID", "ID"), ("DockerRootDir", "Docker Root Dir")
    )


def _end(found: dict[str, Any]) -> list[str]:
    shown = [f"Debug Mode: {_word(found.get('Debug'))}"]
    if found.get("Debug"):
        for key, title in (
            ("NFd", "File Descriptors"),
            ("NGoroutines", "Goroutines"),
            ("SystemTime", "System Time"),
            ("NEventsListener", "EventsListeners"),
        ):
            shown.append(f" {title}: {found.get(key, '')}")
    shown += _texts(
        found, ("HttpProxy", "HTTP Proxy"), ("HttpsProxy", "HTTPS Proxy"), ("NoProxy", "No Proxy")
    )
    if found.get("Labels"):
        shown += ["Labels:", *(f" {label}" for label in found["Labels"])]
    shown.append(f"Experimental: {_word(found.get('ExperimentalBuild'))}")
    registries = found.get("RegistryConfig") or {}
    insecure = [
        name
        for name, config in (registries.get("IndexConfigs") or {}).items()
        if not config.get("Secure")
    ]
    shown.append("Insecure Registries:")
    shown += [f" {name}" for name in [*insecure, *(registries.get("InsecureRegistryCIDRs") or [])]]
    if registries.get("Mirrors"):
        shown += ["Registry Mirrors:", *(f" {mirror}" for mirror in registries["Mirrors"])]
    shown.append(f"Live Restore Enabled: {_word(found.get('LiveRestoreEnabled'))}")
    return shown
