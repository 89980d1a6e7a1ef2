"""What is asked of Lading beyond Docker's API, in labels that any Docker client can send.

::

    lading.rootfs=DIRECTORY[:ro|:O]     the root is a plain directory, not an image
    lading.network=ns:PATH              the network namespace is one that was made elsewhere
    lading.hooks.STAGE=COMMAND          programs of OCI's lifecycle hooks; a hook's JSON, or a list

Only what the request itself says counts. An image can carry labels too, and may not choose what
of the host its containers see. Names under the prefix that are not known are refused: nothing that
was asked for goes unnoticed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lading.errors import Invalid

PREFIX = "lading."
ROOTFS, NETWORK, HOOKS = "lading.rootfs", "lading.network", "lading.hooks."

#: How a directory is used as root: as it is, not written to, or below a writable layer.
IN_PLACE, READ_ONLY, OVERLAID = "rw", "ro", "O"

#: OCI runtime-spec, "POSIX-platform Hooks".
STAGES = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)

#: Stages whose programs are looked up in the container's root, where they may be yet to come.
_INSIDE = "startContainer"

Hooks = dict[str, list[dict[str, Any]]]


class Hook(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One entry of OCI ``hooks``; ``timeout`` in seconds."""

    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The labels of one request. ``rootfs`` is an absolute path without links, or ""."""

    rootfs: str = ""
    rootfs_mode: str = ""
    network: str = ""
    hooks: Hooks = field(default_factory=dict)


def read(labels: Mapping[str, str]) -> Asked:
    """Read a request's labels. Raises Invalid for a wrong value or an unknown name."""
    found: dict[str, Any] = {}
    hooks: Hooks = {}
    for name, value in labels.items():
        if not name.startswith(PREFIX):
            continue
        if name == ROOTFS:
            found["rootfs"], found["rootfs_mode"] = _rootfs(value)
        elif name == NETWORK:
            if not value.startswith("ns:"):
                raise Invalid(f'label {NETWORK}="{value}": it takes ns:PATH')
            found["network"] = value
        elif name.startswith(HOOKS) and name.removeprefix(HOOKS) in STAGES:
            stage = name.removeprefix(HOOKS)
            hooks[stage] = _hooks(stage, value)
        else:
            known = ", ".join((ROOTFS, NETWORK, *(HOOKS + stage for stage in STAGES)))
            raise Invalid(f"unknown label {name}", hint=f"known under {PREFIX}: {known}")
    return Asked(**found, hooks=hooks)


def _rootfs(value: str) -> tuple[str, str]:
    path, mode = value, IN_PLACE
    for suffix in (IN_PLACE, READ_ONLY, OVERLAID):
        if value.endswith(f":{suffix}"):
            path, mode = value.removesuffix(f":{suffix}"), suffix
    if not path.startswith("/"):
        raise Invalid(f'root directory "{path}": an absolute path is needed')
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise Invalid(f'root directory "{path}": {os.strerror(error.errno or 0)}') from error
    if not os.path.isdir(real):
        raise Invalid(f'root directory "{path}": not a directory')
    if mode == OVERLAID and set(real) & set(":,\\"):
        raise Invalid(f'root directory "{path}": a layer cannot lie on a path with : , or \\')
    return real, mode


def check_rootfs(path: str, *own: Path) -> None:
    """Raises Invalid for a root that holds, or lies in, the engine's ``own`` directories."""
    for place in own:
        real = Path(os.path.realpath(place))
        if real.is_relative_to(path) or Path(path).is_relative_to(real):
            raise Invalid(
                f'root directory "{path}": it would show the container the engine\'s own {real}'
            )


def check_rootfs_again(path: str) -> None:
    """As it was when the container was made? Raises Invalid: a link may lead anywhere by now."""
    if not os.path.isdir(path) or os.path.realpath(path) != path:
        raise Invalid(f'root directory "{path}": it is gone, or a link has taken its place')


def _hooks(stage: str, value: str) -> list[dict[str, Any]]:
    try:
        rows = _decoded(value)
    except (msgspec.DecodeError, ValueError) as error:
        raise Invalid(f"{stage} hook: {error}", hint="a command, or OCI hooks as JSON") from error
    for hook in rows:
        if not hook.path.startswith("/"):
            raise Invalid(f'{stage} hook "{hook.path}": an absolute path is needed')
        if hook.timeout is not None and hook.timeout <= 0:
            raise Invalid(f'{stage} hook "{hook.path}": its timeout must be above 0')
        if stage != _INSIDE and not os.access(hook.path, os.X_OK):
            raise Invalid(f'{stage} hook "{hook.path}": no such program')
    return [msgspec.to_builtins(hook) for hook in rows]


def _decoded(value: str) -> list[Hook]:
    if value.lstrip().startswith("["):
        return msgspec.json.decode(value, type=list[Hook])
    if value.lstrip().startswith("{"):
        return [msgspec.json.decode(value, type=Hook)]
    words = shlex.split(value)
    if not words:
        raise ValueError("no command")
    return [Hook(words[0], words)]
