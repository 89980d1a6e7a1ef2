"""Hooks of the isolation contract that need but the init's pidfd and the container's cgroup."""

from __future__ import annotations

import errno
import os
import signal as signals
from collections.abc import Mapping, Sequence
from typing import Any

from lading.bundle.state import State
from lading.errors import Invalid, NotFound, Unsupported
from lading.hooks.common import hookimpl
from lading.hooks.isolation import Container, Stats


class CgroupControl:
    """What a backend inherits whose containers have a :class:`~lading.bundle.state.State`."""

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
