"""An OCI ``config.json`` as an LXC configuration (lxc.container.conf(5))."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lading.errors import Unsupported
from lading.hooks.isolation import Container
from lading_isolation_lxc import seccomp

#: OCI namespace types and LXC's names of them.
NAMESPACES = {"network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}


def check(spec: Mapping[str, Any]) -> None:
    """Raises Unsupported for what LXC cannot hold."""
    process, linux = spec["process"], spec.get("linux") or {}
    given = {n["type"]: n.get("path", "") for n in linux.get("namespaces") or ()}
    if unknown := sorted(given.keys() - {"mount", *NAMESPACES}):
        raise Unsupported(f'isolation "lxc" cannot make a namespace of type "{unknown[0]}"')
    if "mount" not in given:
        raise Unsupported('isolation "lxc" cannot share the host\'s mount namespace')
    if given.get("cgroup"):
        raise Unsupported('isolation "lxc" cannot join a cgroup namespace by path')
    if (linux.get("rootfsPropagation") or "private").removeprefix("r") == "shared":
        raise Unsupported('isolation "lxc" cannot propagate mounts to the host')
    if any(spec.get("hooks", {}).values()):
        raise Unsupported('isolation "lxc" does not run OCI hooks')
    if spec.get("domainname"):
        raise Unsupported('isolation "lxc" cannot set a domain name')
    if (spec.get("annotations") or {}).get("org.lading.init") == "true":
        raise Unsupported('isolation "lxc" has no init of its own that reaps')
    if any("idmap" in (m.get("options") or ()) for m in spec.get("mounts") or ()):
        raise Unsupported('isolation "lxc" does not make id-mapped mounts')
    check_process(process)


def check_process(process: Mapping[str, Any]) -> None:
    """Raises Unsupported for what a process of LXC's cannot be."""
    for row in process.get("env") or ():
        if "\n" in row:
            raise Unsupported(f'isolation "lxc" cannot hold a line break in "{row.split("=")[0]}"')
    if (process.get("capabilities") or {}).get("ambient"):
        raise Unsupported('isolation "lxc" cannot set ambient capabilities')


def text(container: Container, spec: Mapping[str, Any], gate: str) -> str:
    """The configuration file."""
    return "".join(f"{key} = {value}\n" for key, value in _rows(container, spec, gate))


def _rows(container: Container, spec: Mapping[str, Any], gate: str) -> Iterator[tuple[str, object]]:
    process, linux = spec["process"], spec.get("linux") or {}
    state = container.state
    yield "lxc.rootfs.path", f"dir:{container.bundle / 'rootfs'}"
    yield "lxc.autodev", 0
    yield "lxc.pty.max", 0
    yield "lxc.tty.max", 0
    if not process.get("terminal"):
        yield "lxc.console.path", "none"
    yield "lxc.apparmor.profile", process.get("apparmorProfile") or "unconfined"
    yield from _namespaces(linux)
    if hostname := spec.get("hostname"):
        yield "lxc.uts.name", hostname
    hook = shlex.join([sys.executable, "-I", "-m", "lading_isolation_lxc.root"])
    yield "lxc.hook.mount", f"{hook} {shlex.join([str(container.bundle), str(state)])}"
    yield "lxc.hook.start-host", f"{gate} {shlex.quote(str(state))}"
    if group := linux.get("cgroupsPath"):
        yield "lxc.cgroup.dir.container", group.strip("/")
        yield "lxc.cgroup.dir.monitor", f"{group.strip('/')}.monitor"
        yield "lxc.cgroup.dir.monitor.pivot", f"{group.strip('/')}.pivot"
    for name, value in (linux.get("sysctl") or {}).items():
        yield f"lxc.sysctl.{name}", value
    if profile := linux.get("seccomp"):
        (state / "seccomp").write_text(seccomp.text(profile))
        yield "lxc.seccomp.profile", state / "seccomp"
    yield from _process(process)


def _namespaces(linux: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    given = {n["type"]: n.get("path", "") for n in linux.get("namespaces") or ()}
    kept = [name for kind, name in NAMESPACES.items() if kind not in given]
    if kept:
        yield "lxc.namespace.keep", " ".join(kept)
    for kind, path in given.items():
        if path:
            yield f"lxc.namespace.share.{NAMESPACES[kind]}", path
    if "network" not in given or given["network"]:
        yield "lxc.net.0.type", "none"
    else:
        yield "lxc.net.0.type", "empty"


def _process(process: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    user = process["user"]
    yield "lxc.init.uid", user["uid"]
    yield "lxc.init.gid", user["gid"]
    if groups := user.get("additionalGids"):
        yield "lxc.init.groups", ",".join(map(str, groups))
    yield "lxc.init.cwd", process.get("cwd") or "/"
    bounding = (process.get("capabilities") or {}).get("bounding") or ()
    kept = [name.removeprefix("CAP_").lower() for name in bounding]
    yield "lxc.cap.keep", " ".join(kept) or "none"
    yield "lxc.no_new_privs", int(bool(process.get("noNewPrivileges")))
    for limit in process.get("rlimits") or ():
        name = limit["type"].removeprefix("RLIMIT_").lower()
        yield f"lxc.prlimit.{name}", f"{_limit(limit['soft'])}:{_limit(limit['hard'])}"
    for row in process.get("env") or ():
        yield "lxc.environment", row


def _limit(value: int) -> str:
    return "unlimited" if value >= (1 << 64) - 1 else str(value)
