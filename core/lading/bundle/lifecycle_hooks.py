"""OCI lifecycle hooks: programs that config.json wants run at points of a container's life."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from lading.bundle.config import Config
from lading.errors import LadingError
from lading.hooks.isolation import Container

#: The point at which a failure is only told of: the container is gone already.
_AFTERWARDS = ("poststop",)


def run(
    config: Config, names: tuple[str, ...], container: Container, pid: int, status: str
) -> None:
    """Run the hooks of these points in order, the container's state on their standard input.

    Raises LadingError, with what the hook printed, for one that fails or takes too long.
    """
    state = {
        "ociVersion": "1.0.2",
        "id": container.id,
        "status": status,
        "pid": pid,
        "bundle": str(container.bundle),
        "annotations": dict(config.annotations),
    }
    for name in names:
        for hook in config.hooks.get(name) or ():
            try:
                _run(name, hook, json.dumps(state).encode())
            except LadingError as error:
                if name not in _AFTERWARDS:
                    raise
                print(f"warning: container {container.id}: {error}", file=sys.stderr)


def _run(name: str, hook: Mapping[str, Any], state: bytes) -> None:
    path = hook["path"]
    environment = dict(row.partition("=")[::2] for row in hook.get("env") or ())
    try:
        done = subprocess.run(
            list(hook.get("args") or [path]),
            executable=path,
            env=environment,
            input=state,
            capture_output=True,
            timeout=hook.get("timeout"),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LadingError(f'{name} hook "{path}": {error}') from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise LadingError(f'{name} hook "{path}": exit code {done.returncode}: {said}')
