"""The backend object: the isolation contract, each hook in a few lines."""

from __future__ import annotations

import os
import signal as signals
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lading.errors import Conflict, Invalid, NotFound
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stats, Stdio
from lading.linux import capabilities, cgroups
from lading_isolation_native import create, execute, lifecycle_hooks, seccomp
from lading_isolation_native.channel import Channel
from lading_isolation_native.config import Config
from lading_isolation_native.state import State


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
        missing = [
            n for n in capabilities.names((1 << capabilities.last() + 1) - 1)
            if n not in capabilities.names(capabilities.held())
        ]  # fmt: skip
        warnings = [f"the daemon lacks {', '.join(missing)}; containers cannot have it"] * bool(
            missing
        )
        library = seccomp.version()
        if not library:
            warnings.append("libseccomp is missing: containers with a seccomp profile are refused")
        return Probe(
            usable=True,
            version=os.uname().release,
            details={"cgroups": mode, "libseccomp": library or "missing"},
            warnings=tuple(warnings),
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
        if everyone:
            for pid in state.group.processes():
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass
        else:
            descriptor = state.pidfd()
            try:
                signals.pidfd_send_signal(descriptor, signal)
            except ProcessLookupError as error:
                raise NotFound(f'the init of container "{container.id}" has ended') from error
            finally:
                os.close(descriptor)
        if signal == signals.SIGKILL:
            # A frozen version 1 cgroup would keep the signal waiting.
            self.resume(container=container)

    @hookimpl
    def pause(self, container: Container) -> None:
        """Freeze the cgroup."""
        State.load(container).group.freeze()

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
        """Write the limits."""
        try:
            State.load(container).group.apply(resources)
        except OSError as error:
            raise Invalid(f'update container "{container.id}": {error}') from error

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
        try:
            hooks = Config.read(container.bundle).hooks
        except (OSError, Invalid):
            hooks = {}
        lifecycle_hooks.run(hooks, ("poststop",), container, 0, "stopped")
        (container.state / "native.json").unlink(missing_ok=True)
