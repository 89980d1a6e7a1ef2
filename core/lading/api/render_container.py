"""Containers in Docker's JSON: rows of ``ps``, and ``inspect``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lading.api.render_network import endpoints_json, network_settings, ports
from lading.api.times import ago, seconds_of
from lading.api.version import Version
from lading.containers import Container, Health, Listed, MountPoint, Size, State, Status
from lading.model.docker import ContainerConfig, HostConfig
from lading.networks import ContainerNetworks

_OPTIONAL_IN_CONFIG = (
    ("healthcheck", "Healthcheck"),
    ("args_escaped", "ArgsEscaped"),
    ("network_disabled", "NetworkDisabled"),
    ("mac_address", "MacAddress"),
    ("stop_signal", "StopSignal"),
    ("stop_timeout", "StopTimeout"),
    ("shell", "Shell"),
)


def summary(
    row: Listed, image: str, networks: ContainerNetworks, version: Version
) -> dict[str, Any]:
    """One row of ``GET /containers/json``; ``image`` is what to call its image."""
    container = row.container
    shown: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": image,
        "ImageID": container.image,
        "Command": _command(container),
        "Created": seconds_of(container.created),
        "Ports": ports(networks),
        "Labels": container.config.labels,
        "State": container.state.status.value,
        "Status": status_text(container.state),
        "HostConfig": {"NetworkMode": network_mode(container.host_config)},
        "NetworkSettings": {"Networks": endpoints_json(container.id, networks, version)},
        "Mounts": [mount_point(m) for m in container.mounts],
    }
    if version >= (1, 46) and container.host_config.annotations:
        shown["HostConfig"]["Annotations"] = container.host_config.annotations
    if row.size is not None:
        shown["SizeRw"], shown["SizeRootFs"] = row.size.rw, row.size.root
    return shown


def _command(container: Container) -> str:
    words = [container.path, *container.args]
    return " ".join(w if w and not set(w) & set(" \t\n\"'") else shlex.quote(w) for w in words)


def status_text(state: State) -> str:
    """The column STATUS of ``ps``."""
    match state.status:
        case Status.RUNNING | Status.PAUSED:
            suffix = _health_suffix(state.health)
            if state.status is Status.PAUSED:
                suffix = " (Paused)"
            return f"Up {ago(state.started_at)}{suffix}"
        case Status.RESTARTING:
            return f"Restarting ({state.exit_code}) {ago(state.finished_at)} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.CREATED:
            return "Created"
        case Status.EXITED:
            return f"Exited ({state.exit_code}) {ago(state.finished_at)} ago"


def _health_suffix(health: Health | None) -> str:
    if health is None or health.status in ("", "none"):
        return ""
    return f" ({'health: starting' if health.status == 'starting' else health.status})"


def network_mode(host: HostConfig) -> str:
    """The network mode as it is shown: a name always."""
    return host.network_mode if host.network_mode not in ("", "default") else "bridge"


def mount_point(mount: MountPoint) -> dict[str, Any]:
    """An element of ``Mounts``."""
    shown: dict[str, Any] = {"Type": mount.type}
    if mount.name:
        shown["Name"] = mount.name
    shown |= {"Source": mount.source, "Destination": mount.destination}
    if mount.driver:
        shown["Driver"] = mount.driver
    return shown | {"Mode": mount.mode, "RW": mount.rw, "Propagation": mount.propagation}


def inspect(
    container: Container,
    *,
    version: Version,
    networks: ContainerNetworks,
    exec_ids: Sequence[str],
    graph: Mapping[str, str],
    size: Size | None = None,
) -> dict[str, Any]:
    """``GET /containers/X/json``; ``graph`` are rows about its snapshot."""
    shown: dict[str, Any] = {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": list(container.args),
        "State": state_json(container.state),
        "Image": container.image,
        "ResolvConfPath": container.resolv_conf_path,
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": container.filesystem,
        "Platform": container.platform,
        "MountLabel": container.mount_label,
        "ProcessLabel": container.process_label,
        "AppArmorProfile": container.apparmor_profile,
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": host_config_json(container, version),
        "GraphDriver": {"Name": container.filesystem, "Data": dict(graph) or None},
        "Mounts": [mount_point(m) for m in container.mounts],
        "Config": config_json(container.config, version),
        "NetworkSettings": network_settings(container.id, networks, version),
    }
    if size is not None:
        shown["SizeRw"], shown["SizeRootFs"] = size.rw, size.root
    if version < (1, 20):
        shown |= _before_mounts(container)
    return shown


def _before_mounts(container: Container) -> dict[str, Any]:
    """How mounts and the exec driver were shown in 2014."""
    return {
        "ExecDriver": container.isolation,
        "Volumes": {m.destination: m.source for m in container.mounts},
        "VolumesRW": {m.destination: m.rw for m in container.mounts},
    }


def state_json(state: State) -> dict[str, Any]:
    """The member ``State``."""
    shown: dict[str, Any] = {
        "Status": state.status.value,
        "Running": state.running or state.status is Status.RESTARTING,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health is not None:
        shown["Health"] = {
            "Status": state.health.status,
            "FailingStreak": state.health.failing_streak,
            "Log": [
                {"Start": p.start, "End": p.end, "ExitCode": p.exit_code, "Output": p.output}
                for p in state.health.log
            ],
        }
    return shown


def config_json(config: ContainerConfig, version: Version) -> dict[str, Any]:
    """The member ``Config`` of a container or an image."""
    shown: dict[str, Any] = msgspec.to_builtins(config)
    for attribute, name in _OPTIONAL_IN_CONFIG:
        if not getattr(config, attribute):
            del shown[name]
    if config.healthcheck is not None:
        # Docker leaves out what is not set; StartInterval came with 1.44.
        unset = {name for name, value in shown["Healthcheck"].items() if not value}
        unset |= {"StartInterval"} if version < (1, 44) else set()
        for name in unset:
            shown["Healthcheck"].pop(name, None)
    for name in ("ExposedPorts", "Volumes", "OnBuild"):
        shown[name] = shown[name] or None
    if shown["ExposedPorts"] is None:
        del shown["ExposedPorts"]
    return shown


def host_config_json(container: Container, version: Version) -> dict[str, Any]:
    """The member ``HostConfig``, with the defaults that hold in place of what is empty."""
    host = container.host_config
    shown: dict[str, Any] = msgspec.to_builtins(host)
    shown["NetworkMode"] = network_mode(host)
    shown["RestartPolicy"]["Name"] = host.restart_policy.name or "no"
    shown["ConsoleSize"] = host.console_size or [0, 0]
    shown["Runtime"] = host.runtime or container.isolation
    shown["Mounts"] = [_given(m) for m in shown["Mounts"]]
    for name in ("MaskedPaths", "ReadonlyPaths"):
        shown[name] = shown[name] or []
    if host.init is None:
        del shown["Init"]
    if version >= (1, 42):
        del shown["KernelMemory"], shown["KernelMemoryTCP"]
    if version >= (1, 24):
        del shown["LxcConf"]
    if version < (1, 43):
        del shown["Annotations"]
    for name in ("StorageOpt", "Sysctls", "Tmpfs", "Annotations", "Mounts"):
        if name in shown and not shown[name]:
            del shown[name]
    return shown


def _given(shown: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty, at any depth: Docker leaves that out of a mount, and clients look for
    a member before they look into it.

    An object of options that was given stays, though nothing is in it.
    """
    return {
        name: _given(value) if isinstance(value, dict) else value
        for name, value in shown.items()
        if value or isinstance(value, dict)
    }
