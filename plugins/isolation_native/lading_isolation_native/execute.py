"""``exec``: one more process in a running container.

A helper joins the init's namespaces all at once by its pidfd and forks there, as the monitor's
child (``CLONE_PARENT``), since a pid namespace holds only for children. It has let go of the
engine's descriptors before, and cannot be traced or looked into from inside.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from lading.bundle import descriptors
from lading.bundle.channel import Channel
from lading.bundle.joined import Joining
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import procfs, syscalls
from lading.linux.cgroups import Cgroup
from lading_isolation_native import create


def execute(
    container: Container, document: Mapping[str, Any], stdio: Stdio, filters: Path
) -> Started:
    """Run a process; returns when its program is executed. Raises StartFailed, Conflict."""
    plan = Joining.of(container, document, stdio, filters)
    pidfd = plan.pidfd()
    ours, theirs = Channel.pair()
    try:
        descriptors.give(stdio, plan.config.outside(plan.process.uid))
        pid = _fork(plan, pidfd, ours, theirs)
        theirs.close()
        return Started(pid, pid, plan.accompany(ours, pid))
    finally:
        os.close(pidfd)
        ours.close()
        theirs.close()


def _fork(plan: Joining, pidfd: int, ours: Channel, theirs: Channel) -> int:
    def work(report: int) -> NoReturn:
        _help(plan, pidfd, theirs, report)

    try:
        return create.fork_sibling(work, ours, plan.state.group)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A version 2 group that an init (systemd) has divided may not hold processes itself.
        return create.fork_sibling(work, ours, Cgroup.of_process(plan.state.pid))


def _help(plan: Joining, pidfd: int, channel: Channel, report: int) -> NoReturn:
    try:
        descriptors.leave_parent(plan.container.id)
        descriptors.take_streams(plan.stdio)
        descriptors.keep_only((channel.fileno(), report, pidfd))
        proc = procfs.open_procfs()
        if not plan.state.group.unified:
            plan.state.group.join()
        syscalls.setns(pidfd, plan.namespaces())
        pid = syscalls.clone(syscalls.CLONE_PARENT)
        if pid == 0:
            plan.run(channel, proc)
        os.write(report, str(pid).encode())
    except BaseException as error:
        channel.fail(error, 1)
    os._exit(0)
