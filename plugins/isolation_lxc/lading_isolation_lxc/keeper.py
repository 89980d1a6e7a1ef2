"""The keeper: the process that is LXC's monitor of one container, and ends as its init does."""

from __future__ import annotations

import dataclasses
import mmap
import os
import resource
import select
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from lading.bundle import descriptors, init, rootfs
from lading.bundle.channel import Channel
from lading.bundle.init import Plan
from lading.errors import LadingError
from lading.hooks.isolation import Stdio
from lading.linux import cgroups, mounts, namespaces, syscalls
from lading.monitor import process
from lading_isolation_lxc.library import LxcContainer, explanation

#: What a program that reboots its pid namespace has ended with: SIGHUP (reboot(2)).
_REBOOTED = 128 + signal.SIGHUP
#: Seconds after which LXC counts as hung.
DEADLINE = 60.0
_STREAMS = ("stdin", "stdout", "stderr")


def run(plan: Plan, place: Path, log: Path, report: Channel) -> NoReturn:
    """Be the keeper. On ``report`` the init sends its end of a channel, then its pidfd."""
    try:
        process.set_name("lading-lxc")
        # What is open here would stay so as long as the container lives.
        descriptors.leave_parent(plan.container.id)
        descriptors.keep_only([report.fileno()])
        descriptors.take_streams(Stdio())
        # Where LXC finds newuidmap it asks it even for root, who may map whatever it likes.
        os.environ.pop("PATH", None)
        cgroups.hierarchies()
        life = _Life(plan, report)
        # LXC's commands go over a socket that whoever is root in the same network namespace may
        # use, and its answers lead out of any container: here nobody else is.
        syscalls.unshare(syscalls.CLONE_NEWNET)
        started, status = LxcContainer(plan.container.id, place).run(life.become)
        if not started and not life.began():
            raise LadingError("liblxc could not start the container")
    except LadingError as error:
        reason = explanation(log)
        report.fail(LadingError(f"{error}: {reason}") if reason else error, 1)
    except BaseException as error:
        report.fail(error, 1)
    _end_like(status)


def _end_like(status: int) -> NoReturn:
    """End with a status of LXC's: that of waitpid(2), where "stopped by" stands for "killed by"."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    syscalls.libc.signal(number, None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # one that does not kill


class _Life:
    """What the init finds: mounts and descriptors made with the engine's rights before it is."""

    def __init__(self, plan: Plan, report: Channel) -> None:
        self.plan, self.report = plan, report
        # Shared with what is forked: LXC starts a second init after one that has rebooted.
        self._lived = mmap.mmap(-1, mmap.PAGESIZE)
        userns = -1
        if plan.config.remapped:
            # Not the container's own, which LXC is yet to make, but one with its maps.
            userns = namespaces.new_user_namespace(plan.config.uid_map, plan.config.gid_map)
        namespaces.unshare_mounts()
        # LXC takes it away from a container whose root it does not make.
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._proc = mounts.copy_tree(proc, deep=True)
        os.close(proc)
        self._trees: Mapping[int, int] = {}
        self._cgroups = -1
        if "cgroup" not in plan.config.namespaces and not plan.config.remapped:
            self._cgroups = os.open("/proc/self/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        if plan.config.remapped:
            mounts.mount_recipe(plan.rootfs, plan.target, userns)
            # The new user may not walk there by name; the working directory it inherits.
            os.chdir(plan.target)
            self._trees = _trees_within(plan, userns)
            os.close(userns)

    def began(self) -> bool:
        """Whether there was an init."""
        return bool(self._lived[0])

    def become(self) -> NoReturn:
        """Be the init, from where LXC would have executed it."""
        if self._lived[0]:
            os._exit(_REBOOTED)
        self._lived[0] = 1
        try:
            mounts.attach(self._proc, "/proc")
            if self._cgroups >= 0:
                # LXC makes one beside a namespace that it joins, asked for or not. (Where there is
                # a user namespace it stays: from there is no way back.)
                syscalls.setns(self._cgroups, syscalls.CLONE_NEWCGROUP)
            ours, theirs = Channel.pair()
            self.report.send({"made": True}, theirs.fileno())
            theirs.close()
            self.report.send({"pid": True}, os.pidfd_open(os.getpid()))
            stdio = _receive_streams(ours, self.plan.stdio.terminal)
        except BaseException as error:
            self.report.fail(error, 126)
        self.report.close()
        plan = dataclasses.replace(self.plan, stdio=stdio)
        init.run(plan, ours, self._trees, inside=True)


def _receive_streams(channel: Channel, terminal: bool) -> Stdio:
    stdin, stdout, stderr = (channel.expect("given its streams")[1] for _ in _STREAMS)
    return Stdio(stdin, stdout, stderr, terminal)


def send_streams(channel: Channel, stdio: Stdio) -> None:
    """Give the init its streams; from then on its cgroup is what it is to be."""
    for name in _STREAMS:
        channel.send({"stream": name}, getattr(stdio, name))


def _trees_within(plan: Plan, userns: int) -> Mapping[int, int]:
    """Mounts that a process in the user namespace could not make: some in others' namespaces."""
    joined = plan.config.joined(init.JOINED)
    here = {kind: os.open(f"/proc/self/ns/{namespaces.KINDS[kind][1]}", os.O_RDONLY)
            for kind, _ in joined}  # fmt: skip
    for kind, path in joined:
        namespaces.join(path, kind)
    trees = rootfs.trees_from_outside(plan.config, userns)
    for kind, descriptor in here.items():
        syscalls.setns(descriptor, namespaces.KINDS[kind][0])
        os.close(descriptor)
    return trees


def receive_init(report: Channel, log: Path) -> tuple[Channel, int]:
    """The channel to the init, and its pid. Raises what the keeper reports."""
    if not select.select([report], [], [], DEADLINE)[0]:
        # LXC waits for ever for an init that fails at some of its steps.
        raise LadingError(f"liblxc did not start the container: {explanation(log)}")
    _, descriptor = report.expect("made")
    channel = Channel(socket.socket(fileno=descriptor))
    _, pidfd = report.expect("made")
    try:
        return channel, pid_of(pidfd)
    finally:
        os.close(pidfd)


def pid_of(pidfd: int) -> int:
    """The process that a pidfd names, as a pid of ours (pidfd_open(2))."""
    rows = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("Pid:")))
