"""News of processes that the kernel kills for want of memory in a control group.

Version 1 tells by an eventfd that is registered in ``cgroup.event_control``
(Documentation/admin-guide/cgroup-v1/memory.rst, section 10), version 2 by a priority event on
``memory.events``. Either is one descriptor, which can be handed to another process.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import Final

from lading.linux.cgroup_stats import kills
from lading.linux.cgroups import UNIFIED, Cgroup, hierarchies

IN: Final = select.EPOLLIN
PRIORITY: Final = select.EPOLLPRI


def open_watch(group: Cgroup) -> int:
    """A descriptor for :class:`Watch`. Raises OSError where the host cannot tell."""
    if group.unified:
        path = f"{group.directories[UNIFIED]}/memory.events"
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    directory = group.directories.get("memory", "/nonexistent")
    if directory == hierarchies().mounts.get("memory"):
        raise FileNotFoundError(errno.ENOENT, "the root group, where ended processes are")
    control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    watch = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        with open(f"{directory}/cgroup.event_control", "w") as file:
            file.write(f"{watch} {control}")
    except OSError:
        os.close(watch)
        raise
    finally:
        os.close(control)
    return watch


class Watch:
    """Counts kills, when the descriptor has :attr:`events`."""

    __slots__ = ("_seen", "descriptor", "events")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self.events = PRIORITY if regular else IN
        self._seen = 0

    def new(self) -> int:
        """How many processes were killed since the last call. Raises OSError when it is over."""
        if self.events == IN:
            return os.eventfd_read(self.descriptor)
        total = kills(os.pread(self.descriptor, 4096, 0))
        found, self._seen = total - self._seen, total
        return found
