"""The backend object: the isolation contract, each hook in a few lines."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from lading.bundle import attendance, lifecycle_hooks, seccomp
from lading.bundle.channel import Channel
from lading.bundle.config import Config
from lading.bundle.control import CgroupControl
from lading.bundle.state import State
from lading.errors import Conflict, Invalid, NotFound, Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import capabilities, cgroups
from lading_isolation_native import create, execute

log = logging.getLogger(__name__)

#: For mount_setattr(2), which sets attributes of bind mounts before anyone sees them.
_OLDEST_KERNEL = (5, 12)


class Native(CgroupControl):
    """Isolation by system calls."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"userns", "netns-path", "seccomp", "update", "pause", "devices", "hooks"}
    )

    def __init__(self, context: Context) -> None:
        self.filters = context.run / "seccomp"
        self.waiting: dict[str, Channel] = {}

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
            warnings=tuple(_warnings(library)),
        )

    @hookimpl
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        """Fork the init and build its world."""
        started, channel = create.create(container, rootfs, stdio, self.filters)
        self.waiting[container.id] = channel
        return started

    @hookimpl
    def start(self, container: Container) -> None:
        """Tell the waiting init to go on."""
        channel = self.waiting.pop(container.id, None)
        if channel is None:
            raise Conflict(f'container "{container.id}" is not in state created')
        config = Config.read(container.bundle)
        attendance.start(container, channel, config, State.load(container).pid)

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """Join the init's namespaces and execute."""
        return execute.execute(container, process, stdio, self.filters)

    @hookimpl
    def delete(self, container: Container) -> None:
        """Kill, remove the cgroup, run the last hooks."""
        channel = self.waiting.pop(container.id, None)
        if channel is not None:
            channel.close()
        try:
            state = State.load(container)
        except NotFound:
            return
        group = state.group
        group.kill()
        group.remove()
        if state.pid:
            try:
                config = Config.read(container.bundle)
            except (OSError, Invalid, Unsupported):
                log.warning("container %s: no config.json to read hooks from", container.id)
            else:
                lifecycle_hooks.run(config, ("poststop",), container, 0, "stopped")
        State.forget(container)


def _warnings(library: str) -> Iterator[str]:
    every = (1 << capabilities.last() + 1) - 1
    if missing := capabilities.names(every & ~capabilities.held()):
        yield f"the daemon lacks {', '.join(missing)}; containers cannot have it"
    if not library:
        yield "libseccomp is missing: containers with a seccomp profile are refused"
    found = cgroups.hierarchies()
    wanted = {"cpu", "cpuset", "memory", "pids", "blkio", "devices", "freezer"}
    absent = wanted - set(found.mounts) if found.mode != "v2" else set()
    if absent:
        yield f"no cgroup controller for {', '.join(sorted(absent))} is mounted"
