"""The backend object: the isolation contract, each hook in a few lines."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lading.bundle import seccomp
from lading.bundle.control import BundleBackend, host_warnings
from lading.bundle.state import State
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import cgroups
from lading_isolation_native import create, execute

#: For mount_setattr(2), which sets attributes of bind mounts before anyone sees them.
_OLDEST_KERNEL = (5, 12)


class Native(BundleBackend):
    """Isolation by system calls."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"userns", "netns-path", "seccomp", "update", "pause", "devices", "hooks", "init"}
    )

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.filters = context.run / "seccomp"

    @hookimpl
    def probe(self) -> Probe:
        """Usable for root on a kernel with namespaces; the rest are warnings."""
        if os.geteuid() != 0:
            return Probe(usable=False, reason="it needs root", remedy="run the daemon as root")
        mode = cgroups.hierarchies().mode
        if mode == "none":
            return Probe(
                usable=False,
                reason="no cgroup hierarchy is mounted",
                remedy="mount cgroup2 on /sys/fs/cgroup",
            )
        release = os.uname().release
        if tuple(map(int, re.findall(r"\d+", release)[:2])) < _OLDEST_KERNEL:
            return Probe(
                usable=False,
                reason=f"kernel {release} lacks mount_setattr(2)",
                remedy=f"boot kernel {'.'.join(map(str, _OLDEST_KERNEL))} or later",
            )
        library = seccomp.version()
        return Probe(
            usable=True,
            version=release,
            details={"cgroups": mode, "libseccomp": library or "missing"},
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
