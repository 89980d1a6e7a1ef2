"""``config.json`` as an LXC configuration (lxc.container.conf(5)): what LXC is to make of it.

It makes namespaces, id maps, cgroups and the monitor of the container. The root, devices, limits
and all that is the process's own come after, since LXC's ways differ from OCI's there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lading.bundle.config import Config
from lading.errors import Invalid, Unsupported

#: OCI's names of namespaces and LXC's.
_NAMES = {"network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
#: Suffixes of the cgroups that LXC needs beside the container's: for its monitor, while that runs
#: and when it leaves.
MONITOR, PIVOT = ".monitor", ".pivot"


def check(config: Config) -> None:
    """Raises Unsupported for what LXC cannot hold."""
    if "time" in config.namespaces:
        raise Unsupported('isolation "lxc" does not make time namespaces')
    if config.namespaces.get("user"):
        raise Unsupported('isolation "lxc" does not join a user namespace by its path')
    if (config.linux.get("rootfsPropagation") or "").removeprefix("r") == "shared":
        # LXC makes all mounts of a container whose root it does not make dependent on the host's.
        raise Unsupported('isolation "lxc" cannot have mounts of a container appear on the host')


def text(config: Config, cgroup: str, log: Path) -> str:
    """The configuration's text. Raises Invalid for a value that would be more than one line."""
    rows = list(_rows(config, cgroup.strip("/"), log))
    for key, value in rows:
        if "\n" in value:
            raise Invalid(f"{key} {value!r}: LXC's configuration has a value in one line")
    return "".join(f"{key} = {value}\n" for key, value in rows)


def _rows(config: Config, cgroup: str, log: Path) -> Iterator[tuple[str, str]]:
    yield "lxc.log.file", str(log)
    yield "lxc.log.level", "ERROR"
    yield "lxc.cgroup.dir.container", cgroup
    yield "lxc.cgroup.dir.monitor", cgroup + MONITOR
    yield "lxc.cgroup.dir.monitor.pivot", cgroup + PIVOT
    # What it would do unasked, and we do or must not have.
    for key in ("lxc.tty.max", "lxc.pty.max", "lxc.autodev", "lxc.keyring.session"):
        yield key, "0"
    yield "lxc.console.path", "none"
    yield "lxc.apparmor.profile", "unchanged"
    yield from _namespaces(config)
    for kind, rows in (("u", config.uid_map), ("g", config.gid_map)):
        for inside, outside, size in rows:
            yield "lxc.idmap", f"{kind} {inside} {outside} {size}"
    if config.hostname and "uts" in config.namespaces:
        yield "lxc.uts.name", config.hostname


def _namespaces(config: Config) -> Iterator[tuple[str, str]]:
    for kind, path in config.joined(tuple(_NAMES)):
        yield f"lxc.namespace.share.{_NAMES[kind]}", path
    # Said of all: what is not kept is made, one of time too.
    absent = [kind for kind in _NAMES if kind not in config.namespaces]
    kept = [_NAMES[kind] for kind in absent if kind != "network"]
    yield "lxc.namespace.keep", " ".join(["time", *(() if config.remapped else ("user",)), *kept])
    if "network" in absent:
        # Ours, since the keeper has left it.
        yield "lxc.namespace.share.net", f"/proc/{os.getpid()}/ns/net"
    elif not config.namespaces["network"]:
        yield "lxc.net.0.type", "empty"
