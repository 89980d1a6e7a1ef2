"""``exec``: one more process in a running container.

A helper joins the init's namespaces all at once by its pidfd and forks there, as the monitor's
child (``CLONE_PARENT``), since a pid namespace holds only for children. Until the program is
executed the process cannot be traced or looked into from inside (``PR_SET_DUMPABLE``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from lading.errors import StartFailed, from_wire
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import capabilities, namespaces, paths, syscalls
from lading_isolation_native import program, rootfs, seccomp
from lading_isolation_native.channel import Channel
from lading_isolation_native.config import Config, Process
from lading_isolation_native.state import State


def execute(
    container: Container, document: Mapping[str, Any], stdio: Stdio, filters: Path
) -> Started:
    """Run a process; returns when its program is executed. Raises StartFailed, NotFound."""
    config = Config.read(container.bundle)
    process = Process.of(document)
    state = State.load(container)
    profile = config.linux.get("seccomp")
    filter_program = seccomp.compiled(profile, filters) if profile else None
    highest = capabilities.last()
    capabilities.held()
    pidfd = state.pidfd()
    ours, theirs = Channel.pair()
    try:
        helper = os.fork()
        if helper == 0:
            ours.close()
            _helper(config, process, state, pidfd, stdio, theirs, filter_program, highest)
        theirs.close()
        try:
            message, _ = ours.expect("forked")
        finally:
            os.waitpid(helper, 0)
        pid, console = int(message["pid"]), -1
        while (answer := ours.receive())[0] is not None:
            found, descriptor = answer
            console = descriptor if descriptor >= 0 else console
            if found and "error" in found:
                os.waitpid(pid, 0)
                raise _failure(from_wire(found["error"]))
        return Started(pid, pid, console)
    finally:
        os.close(pidfd)
        ours.close()


def _failure(error: Exception) -> Exception:
    if isinstance(error, OSError):
        return StartFailed(str(error))
    return error


def _helper(
    config: Config,
    process: Process,
    state: State,
    pidfd: int,
    stdio: Stdio,
    channel: Channel,
    filter_program: bytes | None,
    highest: int,
) -> NoReturn:
    try:
        state.group.join()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.setns(pidfd, _kinds(config, state.pid))
        pid = syscalls.clone(syscalls.CLONE_PARENT)
        if pid == 0:
            _process(config, process, stdio, channel, filter_program, highest)
        channel.send({"pid": pid})
    except BaseException as error:
        channel.fail(error)
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


def _process(
    config: Config,
    process: Process,
    stdio: Stdio,
    channel: Channel,
    filter_program: bytes | None,
    highest: int,
) -> NoReturn:
    try:
        program.forget_parent()
        if "user" in config.namespaces:
            syscalls.setgroups_setresids(0, 0, ())
        slave = -1
        if process.terminal:
            with paths.opened_root("/") as root:
                master, slave = rootfs.open_console(root, process.console_size, bind=False)
            channel.send({"console": True}, master)
            os.close(master)
        program.take_streams(stdio, slave)
        program.limit(process)
        program.become(process, filter_program, highest)
        program.enter_directory(process.cwd)
        program.execute(process)
    except StartFailed as error:
        channel.fail(error, 127 if error.errno == 2 else 126)
    except BaseException as error:
        channel.fail(error, 126)
    os._exit(126)
