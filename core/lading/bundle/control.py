"""The hooks of the isolation contract that are the same however namespaces are made."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal as signals
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lading.bundle import attendance, lifecycle_hooks
from lading.bundle.channel import Channel
from lading.bundle.config import Config
from lading.bundle.state import State
from lading.errors import Conflict, Invalid, NotFound, Unsupported
from lading.hooks.common import Probe, hookimpl
from lading.hooks.isolation import Container, Stats
from lading.linux import capabilities, cgroups, namespaces

#: For mount_setattr(2), which sets attributes of bind mounts before anyone sees them.
_OLDEST_KERNEL = (5, 12)

log = logging.getLogger(__name__)


def set_limits(container: Container, group: cgroups.Cgroup, resources: Mapping[str, Any]) -> None:
    """Set ``linux.resources`` on a container's group, all or none.

    Raises Invalid for what the kernel refuses, Unsupported for what this host has no controller.
    """
    try:
        group.apply(resources)
        if rules := resources.get("devices"):
            group.apply_devices(rules)
    except OSError as error:
        kind = Unsupported if error.errno == errno.ENOTSUP else Invalid
        raise kind(f'update container "{container.id}": {error}') from error


class BundleBackend(ABC):
    """What a backend inherits whose containers have a :class:`~lading.bundle.state.State`.

    Its ``create`` leaves the channel to the init in ``waiting``.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, Channel] = {}
        # Asked for once, before anything is forked that would have to find it out for itself.
        capabilities.held()
        capabilities.last()
        cgroups.hierarchies()
        namespaces.known()

    @abstractmethod
    def end(self, container: Container, state: State) -> None:
        """Kill what runs of a container and remove its cgroups; they may be gone."""

    @hookimpl
    def start(self, container: Container) -> None:
        """Tell the waiting init to go on."""
        channel = self.waiting.pop(container.id, None)
        if channel is None:
            raise Conflict(f'container "{container.id}" is not in state created')
        config = Config.read(container.bundle)
        attendance.start(container, channel, config, State.load(container).pid)

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
        try:
            state.group.freeze()
        except FileNotFoundError as error:
            raise NotFound(f'container "{container.id}" has just ended') from error

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
        set_limits(container, State.load(container).group, resources)

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
        """Have the backend end it, and run the last hooks."""
        channel = self.waiting.pop(container.id, None)
        if channel is not None:
            channel.close()
        try:
            state = State.load(container)
        except NotFound:
            return
        self.end(container, state)
        if state.pid:
            try:
                config = Config.read(container.bundle)
            except (OSError, Invalid, Unsupported):
                log.warning("container %s: no config.json to read hooks from", container.id)
            else:
                lifecycle_hooks.run(config, ("poststop",), container, 0, "stopped")
        State.forget(container)


def host_refusal() -> Probe | None:
    """Why no bundle can be carried out on this host; None when one can."""
    if os.geteuid() != 0:
        return Probe(usable=False, reason="it needs root", remedy="run the daemon as root")
    if cgroups.hierarchies().mode == "none":
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
    return None


def host_warnings(libseccomp: str) -> Iterator[str]:
    """What containers cannot have on this host; ``libseccomp`` is its version, "" for none."""
    every = (1 << capabilities.last() + 1) - 1
    if missing := capabilities.names(every & ~capabilities.held()):
        yield f"the daemon lacks {', '.join(missing)}; containers cannot have it"
    if not libseccomp:
        yield "libseccomp is missing: containers with a seccomp profile are refused"
    found = cgroups.hierarchies()
    wanted = {"cpu", "cpuset", "memory", "pids", "blkio", "devices", "freezer"}
    absent = wanted - set(found.mounts) if found.mode != "v2" else set()
    if absent:
        yield f"no cgroup controller for {', '.join(sorted(absent))} is mounted"
