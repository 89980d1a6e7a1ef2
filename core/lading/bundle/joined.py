"""One more process in a running container, once it stands in the init's namespaces and cgroup."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lading.bundle import attendance, descriptors, devices, program, seccomp
from lading.bundle.channel import Channel
from lading.bundle.config import Config, Process
from lading.bundle.state import WAITING, State
from lading.errors import Conflict, NotFound, StartFailed
from lading.hooks.isolation import Container, Stdio
from lading.linux import capabilities, namespaces, paths, syscalls


@dataclass(frozen=True, slots=True)
class Joining:
    """All that the process needs to know, found out before the fork."""

    container: Container
    config: Config
    process: Process
    stdio: Stdio
    state: State
    filter: seccomp.Filter | None
    held_capabilities: int
    last_capability: int

    @classmethod
    def of(
        cls, container: Container, document: Mapping[str, Any], stdio: Stdio, filters: Path
    ) -> Joining:
        """Read ``document`` (OCI ``process``); ``filters`` keeps compiled seccomp filters."""
        config = Config.read(container.bundle)
        return cls(
            container,
            config,
            Process.of(document),
            stdio,
            State.load(container),
            seccomp.compiled(config.linux.get("seccomp"), filters),
            attendance.held_capabilities(config),
            capabilities.last(),
        )

    def pidfd(self) -> int:
        """The init's pidfd. Raises Conflict unless the container is running."""
        name = f'container "{self.container.id}"'
        try:
            pidfd = self.state.pidfd()
        except NotFound as error:
            raise Conflict(f"{name} is not running") from error
        waiting = (self.container.state / WAITING).exists()
        if waiting or self.state.group.frozen():
            os.close(pidfd)
            raise Conflict(f"{name} is {'not started' if waiting else 'paused'}")
        return pidfd

    def namespaces(self) -> int:
        """Those in which the init differs from this process (``CLONE_NEW*``).

        The others cannot be joined.
        """
        found = 0
        for kind in self.config.namespaces:
            flag, name = namespaces.KINDS[kind]
            paths = (f"/proc/{pid}/ns/{name}" for pid in ("self", self.state.pid))
            ours, theirs = map(os.stat, paths)
            if ours.st_ino != theirs.st_ino:
                found |= flag
        return found

    def accompany(self, ours: Channel, pid: int) -> int:
        """Do what the process asks for until it is executed; the console's master or -1."""
        console = -1
        try:
            while True:
                message, descriptor = ours.receive()
                if message is None:
                    return console
                console = max(console, descriptor)
                if message.get("wants") == "limits":
                    attendance.limit(self.process, pid)
                    ours.send({})
        except BaseException as error:
            if console >= 0:
                os.close(console)
            ours.close()
            os.waitpid(pid, 0)
            if isinstance(error, OSError):
                raise StartFailed(str(error)) from error
            raise

    def run(self, channel: Channel, proc: int) -> NoReturn:
        """Be the process, from its fork to its execution; ``proc`` is a descriptor of procfs."""
        process = self.process
        try:
            descriptors.lead_session()
            if self.config.remapped:
                syscalls.setgroups_setresids(0, 0, ())
            if process.terminal:
                self._open_terminal(channel)
            if process.limits or process.oom_score_adj is not None:
                channel.ask("limits")
            program.label(process, proc)
            program.become(process, self.held_capabilities, self.last_capability, self.filter)
            program.execute(process)
        except StartFailed as error:
            channel.fail(error, 127 if error.errno == errno.ENOENT else 126)
        except BaseException as error:
            channel.fail(error, 126)

    def _open_terminal(self, channel: Channel) -> None:
        with paths.opened_root("/") as root:
            master, slave = devices.open_console(root, self.process.console_size)
        channel.send({"console": True}, master)
        os.close(master)
        program.take_terminal(slave, self.process.uid)
        os.close(slave)
