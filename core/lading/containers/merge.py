"""A container's config: what the user asked for, over what the image says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lading.errors import Invalid
from lading.model.docker import ContainerConfig, HealthConfig

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_STOP_SIGNAL = "SIGTERM"


def merged(config: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """The request with the image's defaults filled in.

    An entrypoint of the user's own drops the image's command. Raises Invalid when nothing says
    what to run.
    """
    changes: dict[str, Any] = {
        "env": merge_env(image.env, config.env),
        "labels": {**image.labels, **config.labels},
        "exposed_ports": {**image.exposed_ports, **config.exposed_ports},
        "volumes": {**image.volumes, **config.volumes},
        "user": config.user or image.user,
        "working_dir": config.working_dir or image.working_dir,
        "stop_signal": config.stop_signal or image.stop_signal,
        "stop_timeout": _first(config.stop_timeout, image.stop_timeout),
        "shell": _first(config.shell, image.shell),
        "healthcheck": _health(config.healthcheck, image.healthcheck),
        "on_build": [],
    }
    if not config.entrypoint:
        if not config.cmd:
            changes["cmd"] = image.cmd
        if config.entrypoint is None:
            changes["entrypoint"] = image.entrypoint
    elif config.entrypoint == [""]:
        # The way of the command line to say "none at all", the image's command included.
        changes["entrypoint"] = None
    return msgspec.structs.replace(config, **changes)


def _first(mine: Any, images: Any) -> Any:
    return images if mine is None else mine


def merge_env(base: Sequence[str], over: Sequence[str]) -> list[str]:
    """``KEY=value`` rows, later ones win and keep the place of the first; ``KEY`` alone unsets."""
    values: dict[str, str | None] = {}
    for row in [*base, *over]:
        key, equals, value = row.partition("=")
        values[key] = value if equals else None
    return [f"{key}={value}" if value is not None else key for key, value in values.items()]


def _health(mine: HealthConfig | None, images: HealthConfig | None) -> HealthConfig | None:
    if mine is None or images is None:
        return mine or images
    names = HealthConfig.__struct_fields__
    return HealthConfig(**{name: getattr(mine, name) or getattr(images, name) for name in names})


#: What of a container's config an image made from it keeps (OCI image-spec and Docker's own).
_IMAGE_MEMBERS = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Healthcheck",
    "OnBuild",
    "Shell",
    "ArgsEscaped",
)
#: What Docker leaves in an image of the container that it was made from. Nothing acts on it.
_CONTAINER_MEMBERS = (
    "Hostname",
    "Domainname",
    "Image",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
)


def image_settings(config: ContainerConfig) -> dict[str, Any]:
    """The member ``config`` of an image's config."""
    whole: dict[str, Any] = msgspec.to_builtins(config)
    return {name: whole[name] for name in _IMAGE_MEMBERS if whole[name]}


def committed_settings(
    config: ContainerConfig, own: ContainerConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config of an image that a container becomes, and what Docker's clients find there of the
    container itself, whose config is ``own``."""
    made: dict[str, Any] = {n: v for n, v in msgspec.to_builtins(own).items() if v}
    kept = {name: value for name, value in made.items() if name in _CONTAINER_MEMBERS}
    return {**kept, **image_settings(config)}, made


def command(config: ContainerConfig) -> tuple[str, ...]:
    """Entrypoint and command as one list. Raises Invalid when it is empty."""
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    if not words:
        raise Invalid("no command specified")
    return words


def environment(config: ContainerConfig, hostname: str, links: Sequence[str] = ()) -> list[str]:
    """The process's environment: Docker's defaults, links, then the config's.

    HOME is not in it: it comes from the image's user database.
    """
    base = [PATH, f"HOSTNAME={hostname}"]
    if config.tty:
        base.append("TERM=xterm")
    return [row for row in merge_env([*base, *links], config.env) if "=" in row]


def with_home(env: Sequence[str], home: str) -> list[str]:
    """The environment with HOME, unless it has one."""
    if any(row.startswith("HOME=") for row in env):
        return list(env)
    return [*env, f"HOME={home or '/'}"]
