"""``create``: the monitor's side, and the process that helps with some namespaces."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lading.bundle import attendance, descriptors, init, rootfs
from lading.bundle.channel import Channel
from lading.bundle.config import Config
from lading.bundle.init import Plan
from lading.bundle.state import State
from lading.errors import Conflict, LadingError
from lading.hooks import Mount
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import mounts, namespaces, syscalls
from lading.linux.cgroups import UNIFIED, Cgroup

#: Made by clone(2); the cgroup namespace follows once the init is in its cgroup.
_AT_CLONE = ("pid", "mount", "uts", "ipc", "network")


def create(
    container: Container, recipe: Sequence[Mount], stdio: Stdio, filters: Path
) -> tuple[Started, Channel]:
    """Make the container up to the waiting init; the channel is what :func:`start` needs."""
    config = Config.read(container.bundle)
    cgroup = config.linux.get("cgroupsPath") or f"/lading/{container.id}"
    group = Cgroup.at(cgroup)
    plan = attendance.plan(container, config, recipe, stdio, group, filters)
    # Written first: after a crash it tells what is to be removed.
    State(cgroup).save(container)
    pid = 0
    ours, theirs = Channel.pair()
    try:
        resources = config.linux.get("resources") or {}
        _prepare_cgroup(container, group, resources)
        descriptors.give(stdio, config.outside(config.process.uid))
        pid = _fork(plan, ours, theirs)
        theirs.close()
        console = attendance.accompany(plan, ours, pid)
        if rules := resources.get("devices"):
            # Only now: the root may lie on a disk of its own, which its container may not open.
            group.apply_devices(rules)
        State.of(pid, cgroup).save(container, waiting=True)
    except BaseException:
        ours.close()
        theirs.close()
        _undo(container, pid, group)
        raise
    return Started(pid, pid, console), ours


def _prepare_cgroup(container: Container, group: Cgroup, resources: Mapping[str, Any]) -> None:
    if not group.create() and group.processes():
        State.forget(container)
        raise Conflict(f'container "{container.id}": its cgroup has processes already')
    group.apply(resources)


def _undo(container: Container, pid: int, group: Cgroup) -> None:
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    if State.known(container):
        group.remove()
        State.forget(container)


def _fork(plan: Plan, ours: Channel, theirs: Channel) -> int:
    """Fork the init, directly or through a process that joins namespaces first."""
    kinds = plan.config.namespaces
    if not kinds.get("pid") and not {"user", "time"} & set(kinds):
        pid = clone(plan.config.flags(_AT_CLONE), plan.group)
        if pid == 0:
            init.run(plan, theirs)
        return pid
    return fork_sibling(lambda report: _help(plan, theirs, report), ours, plan.group)


def clone(flags: int, group: Cgroup) -> int:
    """clone(2), into a version 2 cgroup at once; one of version 1 is for the child to join."""
    if not group.unified:
        return syscalls.clone(flags)
    directory = os.open(group.directories[UNIFIED], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.clone_into_cgroup(flags, directory)
    finally:
        os.close(directory)


def fork_sibling(work: Callable[[int], NoReturn], ours: Channel, group: Cgroup) -> int:
    """Have a short-lived process do ``work``, which forks with ``CLONE_PARENT``; the child's pid.

    ``work`` is called with a descriptor on which it writes the pid. It runs in the cgroup already
    where that is of version 2.
    """
    result, report = os.pipe()
    helper = clone(0, group)
    if helper == 0:
        work(report)
    os.close(report)
    try:
        text = os.read(result, 32)
    finally:
        os.close(result)
        os.waitpid(helper, 0)
    if not text:
        ours.expect("forked")
        raise LadingError("the container's process could not be forked")
    return int(text)


def _help(plan: Plan, channel: Channel, report: int) -> NoReturn:
    """Join what only a privileged, separate process can, then fork the init as a sibling.

    For a user namespace it also mounts the root and opens the sources of volumes, with the
    engine's own rights.
    """
    config, userns = plan.config, -1
    try:
        trees: Mapping[int, int] = {}
        if not plan.group.unified:
            plan.group.join()
        if config.remapped:
            userns = _user_namespace(config)
            namespaces.unshare_mounts()
            mounts.mount_recipe(plan.rootfs, plan.target, userns)
            # The new user may not walk there by name; the working directory it inherits.
            os.chdir(plan.target)
        for kind, path in config.joined((*init.JOINED, "time")):
            namespaces.join(path, kind)
        if config.namespaces.get("time") == "":
            _new_time_namespace(config.linux.get("timeOffsets") or {})
        if config.remapped:
            trees = rootfs.trees_from_outside(config, userns)
        for kind, path in config.joined(("pid",)):
            namespaces.join(path, kind)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if userns >= 0:
            syscalls.setns(userns, syscalls.CLONE_NEWUSER)
        pid = syscalls.clone(config.flags(_AT_CLONE) | syscalls.CLONE_PARENT)
        if pid == 0:
            init.run(plan, channel, trees)
        os.write(report, str(pid).encode())
    except BaseException as error:
        channel.fail(error, 1)
    os._exit(0)


def _user_namespace(config: Config) -> int:
    if path := config.namespaces["user"]:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return namespaces.new_user_namespace(config.uid_map, config.gid_map)


def _new_time_namespace(offsets: Mapping[str, Any]) -> None:
    syscalls.unshare(syscalls.CLONE_NEWTIME)
    rows = [f"{clock} {o.get('secs', 0)} {o.get('nanosecs', 0)}" for clock, o in offsets.items()]
    if rows:
        Path("/proc/self/timens_offsets").write_text("\n".join(rows))
