"""``create`` and ``start``: the monitor's side, and the init's up to its last steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lading.errors import Conflict, StartFailed, from_wire
from lading.hooks import Mount
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import capabilities, mounts, namespaces, syscalls
from lading.linux.cgroups import Cgroup
from lading_isolation_native import lifecycle_hooks, program, reaper, rootfs, seccomp
from lading_isolation_native.channel import Channel
from lading_isolation_native.config import Config
from lading_isolation_native.state import State

#: Made by clone; the cgroup namespace follows once the init is in its cgroup.
_AT_CLONE = ("user", "pid", "mount", "uts", "ipc", "network")
_JOINED = ("network", "ipc", "uts", "cgroup", "time")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the init needs to know, found out before the fork."""

    container: Container
    config: Config
    rootfs: Sequence[Mount]
    stdio: Stdio
    group: Cgroup
    filter: bytes | None
    highest_capability: int


def create(
    container: Container, recipe: Sequence[Mount], stdio: Stdio, filters: Path
) -> tuple[Started, Channel]:
    """Make the container up to the waiting init; the channel is what :func:`start` needs."""
    config = Config.read(container.bundle)
    profile = config.linux.get("seccomp")
    cgroup = config.linux.get("cgroupsPath") or f"/lading/{container.id}"
    group = Cgroup.at(cgroup)
    plan = Plan(
        container, config, recipe, stdio, group,
        seccomp.compiled(profile, filters) if profile else None, capabilities.last(),
    )  # fmt: skip
    capabilities.held()
    resources = config.linux.get("resources") or {}
    pid = 0
    ours, theirs = Channel.pair()
    try:
        group.create()
        group.apply(resources)
        if rules := resources.get("devices"):
            group.apply_devices(rules)
        pid = _fork(plan, ours, theirs)
        theirs.close()
        console = _accompany(plan, ours, pid)
        State.of(pid, cgroup).save(container)
    except BaseException:
        ours.close()
        theirs.close()
        _undo(pid, group)
        raise
    return Started(pid, pid, console), ours


def _undo(pid: int, group: Cgroup) -> None:
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    group.remove()


def _fork(plan: Plan, ours: Channel, theirs: Channel) -> int:
    """Fork the init, directly or through a process that joins namespaces first."""
    config = plan.config
    flags = config.flags(_AT_CLONE)
    joins = config.joined(("user", "pid")) or (config.new_user_namespace and config.joined(_JOINED))
    if not joins and not config.new_user_namespace:
        pid = syscalls.clone(flags)
        if pid == 0:
            ours.close()
            _init(plan, theirs)
        return pid
    helper = os.fork()
    if helper == 0:
        ours.close()
        _helper(plan, theirs, flags)
    try:
        message, _ = ours.expect("forked")
    finally:
        os.waitpid(helper, 0)
    return int(message["pid"])


def _helper(plan: Plan, theirs: Channel, flags: int) -> NoReturn:
    """Join what only a privileged, separate process can, then fork the init as its own sibling."""
    config = plan.config
    try:
        if config.new_user_namespace:
            # The root is mounted with the host's privileges, then seen from the user namespace.
            namespaces.unshare_mounts()
            mounts.mount_recipe(plan.rootfs, plan.container.bundle / "rootfs")
            # The new user may not walk there by name; the working directory it inherits.
            os.chdir(plan.container.bundle / "rootfs")
        for kind, path in config.joined((*_JOINED, "user", "pid")):
            namespaces.join(path, kind)
        pid = syscalls.clone(flags | syscalls.CLONE_PARENT)
        if pid == 0:
            _init(plan, theirs, joined=True)
        theirs.send({"pid": pid})
    except BaseException as error:
        theirs.fail(error)
    os._exit(0)


def _accompany(plan: Plan, ours: Channel, pid: int) -> int:
    """Do what the init asks for until it is ready; returns the console's master or -1."""
    while True:
        message, descriptor = ours.expect("ready")
        if message.get("wants") == "mappings":
            _map_users(plan.config, pid)
            plan.group.add(pid)
            ours.send({})
        elif message.get("wants") == "hooks":
            names = ("prestart", "createRuntime")
            lifecycle_hooks.run(plan.config.hooks, names, plan.container, pid, "creating")
            ours.send({})
        else:
            return descriptor


def _map_users(config: Config, pid: int) -> None:
    for member, name in (("uidMappings", "uid_map"), ("gidMappings", "gid_map")):
        rows = [
            f"{m['containerID']} {m['hostID']} {m['size']}" for m in config.linux.get(member) or ()
        ]
        if rows:
            Path(f"/proc/{pid}/{name}").write_text("\n".join(rows))


def _init(plan: Plan, channel: Channel, *, joined: bool = False) -> NoReturn:
    """The init, from its first instruction to the execution of the user's program."""
    config = plan.config
    try:
        program.forget_parent()
        _enter_namespaces(plan, channel, joined=joined)
        master, slave = _build(plan, channel)
        channel.send({"ready": True}, master)
        if master >= 0:
            os.close(master)
        message, _ = channel.receive()
        if message is None:
            os._exit(1)
        lifecycle_hooks.run(
            config.hooks, ("startContainer",), plan.container, os.getpid(), "created"
        )
        program.take_streams(plan.stdio, slave)
        _finish(plan, channel)
    except StartFailed as error:
        channel.fail(error, 127 if error.errno == 2 else 126)
    except BaseException as error:
        channel.fail(error, 126)
    os._exit(126)


def _enter_namespaces(plan: Plan, channel: Channel, *, joined: bool) -> None:
    config = plan.config
    if config.new_user_namespace:
        channel.send({"wants": "mappings"})
        channel.expect("mapped")
        syscalls.setgroups_setresids(0, 0, ())
    else:
        plan.group.join()
    if not joined:
        for kind, path in config.joined(_JOINED):
            namespaces.join(path, kind)
    if config.namespaces.get("cgroup") == "":
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    if config.hostname and "uts" in config.namespaces:
        syscalls.sethostname(config.hostname.encode())
    if config.domainname and "uts" in config.namespaces:
        syscalls.setdomainname(config.domainname.encode())


def _build(plan: Plan, channel: Channel) -> tuple[int, int]:
    """Root, mounts, devices, console; returns (master, slave) of the terminal or (-1, -1)."""
    config = plan.config
    target = plan.container.bundle / "rootfs"
    rootfs.detach_from_host(config.linux.get("rootfsPropagation") or "private")
    if config.new_user_namespace:
        root = rootfs.own_mount_here()
    else:
        mounts.mount_recipe(plan.rootfs, target)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    rootfs.make(config, root, plan.group)
    master = slave = -1
    if config.process.terminal:
        master, slave = rootfs.open_console(root, config.process.console_size, bind=True)
    if config.hooks.get("prestart") or config.hooks.get("createRuntime"):
        channel.send({"wants": "hooks"})
        channel.expect("hooked")
    lifecycle_hooks.run(config.hooks, ("createContainer",), plan.container, os.getpid(), "creating")
    rootfs.enter(root)
    os.close(root)
    rootfs.write_sysctls(config.linux.get("sysctl") or {})
    program.make_directory(config.process.cwd)
    rootfs.protect(config)
    return master, slave


def _finish(plan: Plan, channel: Channel) -> None:
    process = plan.config.process
    program.limit(process)
    if plan.config.reaping_init:
        program.become(process, plan.filter, plan.highest_capability)
        child = reaper.fork_program()
        if child:
            reaper.serve(child)
    else:
        program.become(process, plan.filter, plan.highest_capability)
    program.enter_directory(process.cwd)
    program.execute(process)


def start(container: Container, channel: Channel, hooks: Any, pid: int) -> None:
    """Let the init go on; returns when it has executed the program. Raises StartFailed."""
    try:
        channel.send({"start": True})
        message, _ = channel.receive()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Conflict(f'container "{container.id}" is not in state created') from error
    finally:
        channel.close()
    if message is not None and "error" in message:
        raise _as_start_failure(message)
    lifecycle_hooks.run(hooks, ("poststart",), container, pid, "running")


def _as_start_failure(message: Any) -> Exception:
    error = from_wire(message["error"])
    if isinstance(error, OSError):
        return StartFailed(str(error), errno=0)
    return error
