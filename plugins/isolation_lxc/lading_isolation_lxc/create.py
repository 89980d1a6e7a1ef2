"""``create``, and the end of what it has begun: the starter's side."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Sequence

from lading.bundle import attendance, descriptors
from lading.bundle.channel import Channel
from lading.bundle.config import Config
from lading.bundle.init import Plan
from lading.bundle.state import State
from lading.errors import Conflict
from lading.hooks import Mount
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux.cgroups import UNIFIED, Cgroup, hierarchies
from lading_isolation_lxc import config as lxc
from lading_isolation_lxc import keeper
from lading_isolation_lxc.places import Places

#: Seconds that LXC has for cleaning up after an init that was killed.
_ENDING = 10.0


def create(
    container: Container, recipe: Sequence[Mount], stdio: Stdio, places: Places
) -> tuple[Started, Channel]:
    """Make the container up to the waiting init; the channel is what ``start`` needs."""
    config = Config.read(container.bundle)
    lxc.check(config)
    cgroup = config.linux.get("cgroupsPath") or f"/lading/{container.id}"
    group = Cgroup.at(cgroup)
    plan = attendance.plan(container, config, recipe, stdio, group, places.filters)
    if group.processes() or Cgroup.at(cgroup + lxc.MONITOR).processes():
        raise Conflict(f'container "{container.id}": its cgroup has processes already')
    # Written first: after a crash it tells what is to be removed.
    State(cgroup).save(container)
    ours, theirs = Channel.pair()
    pid = -1
    try:
        places.configure(container, lxc.text(config, cgroup, places.log(container)))
        _prepare_cgroups(cgroup)
        descriptors.give(stdio, config.outside(config.process.uid))
        pid = os.fork()
        if pid == 0:
            keeper.run(plan, places.containers, places.log(container), theirs)
        theirs.close()
        channel, init = keeper.receive_init(ours, places.log(container))
        return _accompany(plan, cgroup, channel, init, pid)
    except BaseException:
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        end(cgroup)
        places.remove(container)
        State.forget(container)
        raise
    finally:
        ours.close()
        theirs.close()


def _accompany(
    plan: Plan, cgroup: str, channel: Channel, pid: int, keeper_pid: int
) -> tuple[Started, Channel]:
    try:
        state = State.of(pid, cgroup)
        state.save(plan.container)
        resources = plan.config.linux.get("resources") or {}
        plan.group.apply(resources)
        keeper.send_streams(channel, plan.stdio)
        console = attendance.accompany(plan, channel, pid)
        if rules := resources.get("devices"):
            # Only now: the root may lie on a disk of its own, which its container may not open.
            plan.group.apply_devices(rules)
        state.save(plan.container, waiting=True)
    except BaseException:
        channel.close()
        raise
    return Started(pid, keeper_pid, console), channel


def _prepare_cgroups(cgroup: str) -> None:
    """Have the parents as our other groups have them: LXC takes what is there.

    The container's and its monitor's LXC insists on making.
    """
    for name in (cgroup, cgroup + lxc.MONITOR):
        for group in _groups(name):
            group.remove()
    for group in _groups(cgroup + lxc.PIVOT):
        group.create()


def end(cgroup: str) -> None:
    """Kill what runs in a container's cgroup, let LXC's monitor end, and remove all groups."""
    group = Cgroup.at(cgroup)
    group.kill()
    give_up = time.monotonic() + _ENDING
    for pid in Cgroup.at(cgroup + lxc.MONITOR).processes():
        _await_end(pid, give_up)
    # The container's last: who finds the others knows that there is something to remove.
    for name in (cgroup + lxc.MONITOR, cgroup + lxc.PIVOT, cgroup):
        for group in _groups(name):
            group.remove()


def _await_end(pid: int, give_up: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [], max(0.0, give_up - time.monotonic()))
    finally:
        os.close(pidfd)


def _groups(name: str) -> Iterator[Cgroup]:
    """A group in all hierarchies: LXC uses the empty one of a hybrid host, too."""
    yield Cgroup.at(name)
    where = hierarchies()
    if where.mode == "hybrid":
        yield Cgroup({UNIFIED: f"{where.mounts[UNIFIED]}/{name.strip('/')}"})
