"""``exec``: one more process in a running container, forked and put there by LXC's attach."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lading.bundle import descriptors
from lading.bundle.channel import Channel
from lading.bundle.joined import Joining
from lading.errors import LadingError
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import namespaces, procfs, syscalls
from lading_isolation_lxc.library import LxcContainer, explanation
from lading_isolation_lxc.places import Places

_PR_GET_DUMPABLE = 3


def execute(
    container: Container, document: Mapping[str, Any], stdio: Stdio, places: Places
) -> Started:
    """Run a process; returns when its program is executed. Raises StartFailed, Conflict."""
    plan = Joining.of(container, document, stdio, places.filters)
    os.close(plan.pidfd())
    ours, theirs = Channel.pair()
    try:
        descriptors.give(stdio, plan.config.outside(plan.process.uid))
        pid = _attach(plan, theirs, places)
        theirs.close()
        return Started(pid, pid, plan.accompany(ours, pid))
    finally:
        ours.close()
        theirs.close()


def _attach(plan: Joining, channel: Channel, places: Places) -> int:
    proc = procfs.open_procfs()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    before = syscalls.prctl(_PR_GET_DUMPABLE)

    def become() -> None:
        descriptors.leave_parent(plan.container.id)
        descriptors.take_streams(plan.stdio)
        descriptors.keep_only((channel.fileno(), proc))
        plan.run(channel, proc)

    container = LxcContainer(plan.container.id, places.containers)
    try:
        # Nobody in the container may look into the process before it has let go of everything.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        with _beside(plan.state.pid):
            kinds = plan.namespaces() | syscalls.CLONE_NEWNET
            return container.attach(kinds, null, become)
    except LadingError as error:
        if reason := explanation(places.log(plan.container)):
            raise LadingError(f"{error}: {reason}") from error
        raise
    finally:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, before)
        container.close()
        os.close(null)
        os.close(proc)


@contextmanager
def _beside(init: int) -> Iterator[None]:
    """Be in the network namespace of the keeper, the init's parent, where LXC answers."""
    stat = Path(f"/proc/{init}/stat").read_bytes()
    keeper = int(stat.rpartition(b") ")[2].split()[1])
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.join(f"/proc/{keeper}/ns/net", "network")
        yield
    finally:
        syscalls.setns(here, syscalls.CLONE_NEWNET)
        os.close(here)
