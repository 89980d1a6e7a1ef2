"""The backend object: the isolation contract, each hook in a few lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lading.bundle import seccomp
from lading.bundle.control import BundleBackend, host_refusal, host_warnings
from lading.bundle.state import State
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import cgroups
from lading_isolation_native import create, execute


class Native(BundleBackend):
    """Isolation by system calls."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {
            "userns",
            "netns-path",
            "seccomp",
            "update",
            "pause",
            "devices",
            "hooks",
            "init",
            "rshared",
        }
    )

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.filters = context.run / "seccomp"

    @hookimpl
    def probe(self) -> Probe:
        """Usable for root on a kernel with namespaces; the rest are warnings."""
        if unusable := host_refusal():
            return unusable
        library = seccomp.version()
        return Probe(
            usable=True,
            version=os.uname().release,
            details={"cgroups": cgroups.hierarchies().mode, "libseccomp": library or "missing"},
            warnings=tuple(host_warnings(library)),
        )

    @hookimpl
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        """Fork the init and build its world."""
        started, channel = create.create(container, rootfs, stdio, self.filters)
        self.waiting[container.id] = channel
        return started

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """Join the init's namespaces and execute."""
        return execute.execute(container, process, stdio, self.filters)

    def end(self, container: Container, state: State) -> None:
        """Kill, and remove the cgroup."""
        state.group.kill()
        state.group.remove()
