"""The backend object: the isolation contract, each hook in a few lines."""

from __future__ import annotations

import errno
import os
import re
import signal as signals
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from lading.errors import Conflict, Invalid, NotFound, Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stats, Stdio
from lading.linux import capabilities, cgroups
from lading_isolation_native import create, execute, lifecycle_hooks, seccomp
from lading_isolation_native.channel import Channel
from lading_isolation_native.config import Config
from lading_isolation_native.state import State

#: For mount_setattr(2), which sets attributes of bind mounts before anyone sees them.
_OLDEST_KERNEL = (5, 12)


class Native:
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
        hooks = Config.read(container.bundle).hooks
        create.start(container, channel, hooks, State.load(container).pid)

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """Join the init's namespaces and execute."""
        return execute.execute(container, process, stdio, self.filters)

    @hookimpl
    def signal(self, container: Container, signal: int, everyone: bool) -> None:
        """Signal the init by its pidfd, or all processes of the cgroup."""
        state = State.load(container)
        descriptor = state.pidfd()
        try:
            signals.pidfd_send_signal(descriptor, 0 if everyone else signal)
        except ProcessLookupError as error:
            raise NotFound(f'the init of container "{container.id}" has ended') from error
        finally:
            os.close(descriptor)
        for pid in state.group.processes() if everyone else ():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass
        if signal == signals.SIGKILL:
            # A frozen version 1 cgroup would keep the signal waiting.
            self.resume(container=container)

    @hookimpl
    def pause(self, container: Container) -> None:
        """Freeze the cgroup."""
        state = State.load(container)
        os.close(state.pidfd())
        state.group.freeze()

    @hookimpl
    def resume(self, container: Container) -> None:
        """Thaw the cgroup."""
        group = State.load(container).group
        try:
            if group.frozen():
                group.thaw()
        except FileNotFoundError:
            pass

    @hookimpl
    def update(self, container: Container, resources: Mapping[str, Any]) -> None:
        """Write the limits, and the device rules when there are some."""
        group = State.load(container).group
        try:
            group.apply(resources)
            if rules := resources.get("devices"):
                group.apply_devices(rules)
        except OSError as error:
            kind = Unsupported if error.errno == errno.ENOTSUP else Invalid
            raise kind(f'update container "{container.id}": {error}') from error

    @hookimpl
    def processes(self, container: Container) -> Sequence[int]:
        """The pids in the cgroup."""
        return State.load(container).group.processes()

    @hookimpl
    def stats(self, container: Container) -> Stats:
        """Read the cgroup."""
        return State.load(container).group.stats()

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
                hooks = Config.read(container.bundle).hooks
            except (OSError, Invalid, Unsupported):
                hooks = {}
            lifecycle_hooks.run(hooks, ("poststop",), container, 0, "stopped")
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
