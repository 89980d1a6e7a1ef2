"""``exec``: one more process in a running container.

A helper joins the init's namespaces all at once by its pidfd and forks there, as the monitor's
child (``CLONE_PARENT``), since a pid namespace holds only for children. It has let go of the
engine's descriptors before, and cannot be traced or looked into from inside.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lading.errors import Conflict, NotFound, StartFailed
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import capabilities, namespaces, paths, procfs, syscalls
from lading.linux.cgroups import Cgroup
from lading_isolation_native import create, descriptors, devices, program, seccomp
from lading_isolation_native.channel import Channel
from lading_isolation_native.config import Config, Process
from lading_isolation_native.state import WAITING, State


@dataclass(frozen=True, slots=True)
class _Plan:
    container: Container
    config: Config
    process: Process
    stdio: Stdio
    state: State
    pidfd: int
    filter: seccomp.Filter | None
    held_capabilities: int
    last_capability: int


def execute(
    container: Container, document: Mapping[str, Any], stdio: Stdio, filters: Path
) -> Started:
    """Run a process; returns when its program is executed. Raises StartFailed, Conflict."""
    config = Config.read(container.bundle)
    state = State.load(container)
    pidfd = _running(container, state)
    plan = _Plan(
        container,
        config,
        Process.of(document),
        stdio,
        state,
        pidfd,
        seccomp.compiled(config.linux.get("seccomp"), filters),
        create.held_capabilities(config),
        capabilities.last(),
    )
    ours, theirs = Channel.pair()
    try:
        descriptors.give(stdio, config.outside(plan.process.uid))
        pid = _fork(plan, ours, theirs)
        theirs.close()
        return Started(pid, pid, _accompany(plan, ours, pid))
    finally:
        os.close(pidfd)
        ours.close()
        theirs.close()


def _running(container: Container, state: State) -> int:
    """The init's pidfd. Raises Conflict unless the container is running."""
    try:
        pidfd = state.pidfd()
    except NotFound as error:
        raise Conflict(f'container "{container.id}" is not running') from error
    waiting = (container.state / WAITING).exists()
    if waiting or state.group.frozen():
        os.close(pidfd)
        status = "not started" if waiting else "paused"
        raise Conflict(f'container "{container.id}" is {status}')
    return pidfd


def _accompany(plan: _Plan, ours: Channel, pid: int) -> int:
    """Do what the process asks for until it is executed; returns the console's master or -1."""
    console = -1
    try:
        while True:
            message, descriptor = ours.receive()
            if message is None:
                return console
            console = max(console, descriptor)
            if message.get("wants") == "limits":
                create.limit(plan.process, pid)
                ours.send({})
    except BaseException as error:
        if console >= 0:
            os.close(console)
        ours.close()
        os.waitpid(pid, 0)
        if isinstance(error, OSError):
            raise StartFailed(str(error)) from error
        raise


def _fork(plan: _Plan, ours: Channel, theirs: Channel) -> int:
    def work(report: int) -> NoReturn:
        _help(plan, theirs, report)

    try:
        return create.fork_sibling(work, ours, plan.state.group)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A version 2 group that an init (systemd) has divided may not hold processes itself.
        return create.fork_sibling(work, ours, Cgroup.of_process(plan.state.pid))


def _help(plan: _Plan, channel: Channel, report: int) -> NoReturn:
    try:
        descriptors.leave_parent(plan.container.id)
        descriptors.take_streams(plan.stdio)
        descriptors.keep_only((channel.fileno(), report, plan.pidfd))
        proc = procfs.open_procfs()
        if not plan.state.group.unified:
            plan.state.group.join()
        syscalls.setns(plan.pidfd, _kinds(plan.config, plan.state.pid))
        pid = syscalls.clone(syscalls.CLONE_PARENT)
        if pid == 0:
            _run(plan, channel, proc)
        os.write(report, str(pid).encode())
    except BaseException as error:
        channel.fail(error, 1)
    os._exit(0)


def _kinds(config: Config, pid: int) -> int:
    """The namespaces in which the init differs from this process: the others cannot be joined."""
    found = 0
    for kind in config.namespaces:
        flag, name = namespaces.KINDS[kind]
        ours, theirs = os.stat(f"/proc/self/ns/{name}"), os.stat(f"/proc/{pid}/ns/{name}")
        if ours.st_ino != theirs.st_ino:
            found |= flag
    return found


def _run(plan: _Plan, channel: Channel, proc: int) -> NoReturn:
    """Be the process, from its fork to its execution."""
    process = plan.process
    try:
        os.setsid()
        if plan.config.remapped:
            syscalls.setgroups_setresids(0, 0, ())
        if process.terminal:
            _open_terminal(process, channel)
        if process.limits or process.oom_score_adj is not None:
            channel.ask("limits")
        program.label(process, proc)
        program.become(process, plan.held_capabilities, plan.last_capability, plan.filter)
        program.execute(process)
    except StartFailed as error:
        channel.fail(error, 127 if error.errno == errno.ENOENT else 126)
    except BaseException as error:
        channel.fail(error, 126)


def _open_terminal(process: Process, channel: Channel) -> None:
    with paths.opened_root("/") as root:
        master, slave = devices.open_console(root, process.console_size)
    channel.send({"console": True}, master)
    os.close(master)
    program.take_terminal(slave, process.uid)
    os.close(slave)
