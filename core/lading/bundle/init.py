"""The init of a container, from the clone to the execution of the user's program."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lading.bundle import (
    descriptors,
    devices,
    lifecycle_hooks,
    program,
    protection,
    reaper,
    rootfs,
)
from lading.bundle.channel import Channel
from lading.bundle.config import Config
from lading.bundle.seccomp import Filter
from lading.errors import StartFailed
from lading.hooks import Mount
from lading.hooks.isolation import Container, Stdio
from lading.linux import mounts, namespaces, procfs, syscalls
from lading.linux.cgroups import Cgroup

#: Namespaces that the init joins by itself, when no other process does it before.
JOINED = ("network", "ipc", "uts", "cgroup")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the init needs to know, found out before the fork."""

    container: Container
    config: Config
    rootfs: Sequence[Mount]
    stdio: Stdio
    group: Cgroup
    filter: Filter | None
    held_capabilities: int
    last_capability: int
    own_texts: tuple[reaper.Range, reaper.Range] | None

    @property
    def target(self) -> Path:
        """Where the root is mounted before it becomes the root."""
        return self.container.bundle / "rootfs"


def run(
    plan: Plan,
    channel: Channel,
    trees: Mapping[int, int] | None = None,
    *,
    inside: bool = False,
) -> NoReturn:
    """Be the init.

    ``trees`` is what a helping process gave it; None when there was none, and the init is to enter
    its cgroup and others' namespaces by itself. When it is ``inside``, it is in all of them.
    In a user namespace the working directory is where the root is mounted.
    """
    config = plan.config
    try:
        descriptors.leave_parent(plan.container.id)
        descriptors.take_streams(plan.stdio)
        descriptors.keep_only([channel.fileno(), *(trees or {}).values()])
        labelled = config.process.apparmor or config.process.selinux
        # Opened while /proc is still the host's.
        proc = procfs.open_procfs() if labelled or config.linux.get("sysctl") else -1
        if config.remapped:
            syscalls.setgroups_setresids(0, 0, ())
        if not inside:
            _enter_namespaces(plan, helped=trees is not None)
        _take_names(config)
        slave = _build(plan, channel, proc, trees or {})
        if slave >= 0:
            program.take_terminal(slave, config.process.uid)
            os.close(slave)
        if config.process.limits or config.process.oom_score_adj is not None:
            channel.ask("limits")
        channel.send({"ready": True})
        message, _ = channel.receive()
        if message is None:
            os._exit(1)
        names = ("startContainer",)
        lifecycle_hooks.run(config, names, plan.container, os.getpid(), "created")
        program.label(config.process, proc)
        _finish(plan)
    except StartFailed as error:
        channel.fail(error, 127 if error.errno == errno.ENOENT else 126)
    except BaseException as error:
        channel.fail(error, 126)


def _enter_namespaces(plan: Plan, *, helped: bool) -> None:
    config = plan.config
    if not helped:
        if not plan.group.unified:
            plan.group.join()
        for kind, path in config.joined(JOINED):
            namespaces.join(path, kind)
    if config.namespaces.get("cgroup") == "":
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)


def _take_names(config: Config) -> None:
    if config.hostname and "uts" in config.namespaces:
        syscalls.sethostname(config.hostname.encode())
    if config.domainname and "uts" in config.namespaces:
        syscalls.setdomainname(config.domainname.encode())


def _build(plan: Plan, channel: Channel, proc: int, trees: Mapping[int, int]) -> int:
    """Root, mounts, devices, console; returns the terminal's slave or -1."""
    config = plan.config
    propagation = config.linux.get("rootfsPropagation") or ""
    rootfs.detach_from_host(propagation, plan.target)
    if config.remapped:
        root = rootfs.own_mount_here()
    else:
        mounts.mount_recipe(plan.rootfs, plan.target)
        root = os.open(plan.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    rootfs.make(config, root, plan.group, trees)
    devices.populate(config, root)
    slave = -1
    if config.process.terminal:
        master, slave = devices.open_console(root, config.process.console_size)
        devices.bind_console(root, slave)
        channel.send({"console": True}, master)
        os.close(master)
    if config.hooks.get("prestart") or config.hooks.get("createRuntime"):
        channel.ask("hooks")
    lifecycle_hooks.run(config, ("createContainer",), plan.container, os.getpid(), "creating")
    rootfs.make_working_directory(root, config.process.cwd)
    protection.write_sysctls(config.linux.get("sysctl") or {}, proc)
    protection.protect(config, root)
    rootfs.enter(root, propagation)
    return slave


def _finish(plan: Plan) -> NoReturn:
    process = plan.config.process
    program.become(process, plan.held_capabilities, plan.last_capability, plan.filter)
    if plan.own_texts is not None:
        reaper.hide_texts(*plan.own_texts)
        child = reaper.fork_program()
        if child:
            reaper.serve(child)
    program.execute(process)
