"""Children of the monitor in which the isolation backend's hooks run.

``create``, ``start`` and ``exec``, and all that leads to them, touch far more memory than a
monitor that waits. Each page that they touch would be the monitor's own from then on, so they run
in a process that ends: what it has started becomes the monitor's child, which is a subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER), and what the monitor must know comes as a :class:`Birth`.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, cast

from lading import operations
from lading.errors import StartFailed, Unavailable, from_wire, to_wire
from lading.hooks.isolation import Container, Isolation, Stdio
from lading.linux import cgroup_oom, syscalls
from lading.linux.cgroups import Cgroup
from lading.monitor import process, wire
from lading.monitor.control import listen, remove_socket
from lading.monitor.exit import EXIT_FILE, write_exit
from lading.monitor.launch import Exit, Launch, rfc3339
from lading.monitor.logfile import Plan, prepare_log
from lading.monitor.stdio import Ends

if TYPE_CHECKING:
    from lading.backends import Loaded

#: Among the descriptors of a birth, the daemon's connection.
CONTROL = "control"


#: What a hook that ignores its timeout gets on top, before its process is killed.
_GRACE_SECONDS = 10.0


class Birth(TypedDict):
    """What a monitor knows of its container; ``started_at`` is 0 when it only has been created.

    ``fds`` names the descriptors that come along: the daemon's connection, ``listener``, ``log``,
    the monitor's ends of the streams, and those of the launch.
    """

    container: str
    isolation: str
    bundle: str
    run: str
    pid: int
    wait_pid: int
    started_at: float
    terminal: bool
    stdin_once: bool
    log: Plan
    attach: list[dict[str, Any]]
    hook_timeout: float
    fds: list[str]


class Starter:
    """The monitor's end of such a child."""

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        """Fork a child that does ``work`` with its end of a socket, and ends."""
        self._socket, theirs = socket.socketpair()
        if syscalls.fork() == 0:
            try:
                signal.set_wakeup_fd(-1)
                # A backend's system calls are not Python's: a handler would interrupt them.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                self._socket.close()
                work(theirs)
            except BaseException as error:
                wire.send_to_kin(theirs, {"error": to_wire(error)}, ())
            finally:
                os._exit(0)
        theirs.close()
        self._receiver = wire.KinReceiver(self._socket)

    def answer(self) -> tuple[wire.Message, list[int]]:
        """Wait for what the child has to tell, with descriptors; raises its error.

        Raises Unavailable when it has ended without a word.
        """
        message, fds = self._receiver.receive()
        if "error" in message:
            raise from_wire(message["error"])
        return message, fds

    def proceed(self, operation: str) -> None:
        """Let a child that has created go on to ``start``; raises its error."""
        wire.send(self._socket, {"operation": operation})
        self.answer()

    def close(self) -> None:
        """Give the child up: it ends when it waits for :meth:`proceed`."""
        self._socket.close()


def launch(
    backends: Mapping[str, Loaded[Isolation]], source: socket.socket, sock: socket.socket
) -> None:
    """Bring the container to life that the daemon asks for, and answer it.

    Its connection comes on ``source``. When that fails the daemon is told why, and the monitor
    nothing: it has nothing to do then.
    """
    _, connections = wire.receive(source, 1)
    if not connections:
        return  # the spawner has ended
    process.set_name(process.MONITOR)
    connection = socket.socket(fileno=connections[0])
    request, fds = wire.Receiver(connection).receive()
    asked = Launch.from_wire(request["launch"])
    named = {**dict(zip(request["fds"], fds, strict=True)), CONTROL: connection.fileno()}
    container = Container(asked.container, asked.bundle, asked.run / "state")
    try:
        loaded = backends.get(asked.isolation)
        if loaded is None:
            raise Unavailable(f'isolation backend "{asked.isolation}" is not loaded in the spawner')
        (asked.run / EXIT_FILE).unlink(missing_ok=True)
        with (
            operations.within(request.get("operation", "")),
            _in_time(asked.isolation, asked.hook_timeout),
        ):
            birth, given = _launch(loaded.hook, asked, container, named)
    except BaseException as error:
        remove_socket(str(asked.run))
        wire.send(connection, {"error": to_wire(error)})
        return
    try:
        # Before the monitor knows, which may have the container's end to tell at once.
        wire.send(connection, first_state(birth, os.getppid()))
    except OSError:
        pass  # the daemon is gone; its successor will ask the monitor
    wire.send_to_kin(sock, birth, given)
    if not asked.start:
        # Nothing must stay open because of this process, which waits, perhaps for long.
        connection.detach()
        for fd in given:
            os.close(fd)
        told = _told_to_start(sock, birth["pid"])
        if told is not None:
            with (
                operations.within(told["operation"]),
                _in_time(asked.isolation, asked.hook_timeout),
            ):
                loaded.hook.start(container=container)
            wire.send_to_kin(sock, {}, ())


@contextmanager
def _in_time(isolation: str, seconds: float) -> Iterator[None]:
    """Let hooks that hang fail, so that nobody waits for ever. Raises Unavailable."""
    try:
        with process.deadline(seconds, _GRACE_SECONDS):
            yield
    except process.Overdue as error:
        raise Unavailable(
            f'isolation backend "{isolation}" did not answer within {seconds:g} s'
        ) from error


def _told_to_start(sock: socket.socket, pid: int) -> wire.Message | None:
    """Wait for the monitor's word; None when the init ends first, whose parent it then becomes."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    ready = poll.poll()
    os.close(pidfd)
    if all(fd != sock.fileno() for fd, _ in ready):
        return None
    message, _ = wire.Receiver(sock).receive()
    return message


def _launch(
    isolation: Isolation, asked: Launch, container: Container, named: Mapping[str, int]
) -> tuple[Birth, list[int]]:
    """Create and, unless that comes later, start; returns what the monitor gets."""
    container.state.mkdir(mode=0o700, exist_ok=True)
    log, plan = prepare_log(asked.log)
    listener = listen(str(asked.run)).detach()
    with Ends(terminal=asked.terminal, stdin=asked.open_stdin) as ends:
        started = isolation.create(container=container, rootfs=asked.rootfs, stdio=ends.stdio)
        if asked.start:
            _start(isolation, container)
        stdin, stdout, stderr = ends.take()
    oom = _watch_memory(started.pid)
    ours = {"listener": listener, "log": log, "console": started.console, "oom": oom}
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    given = {name: fd for name, fd in {**ours, **streams, **named}.items() if fd >= 0}
    birth: Birth = {
        "container": asked.container,
        "isolation": asked.isolation,
        "bundle": str(asked.bundle),
        "run": str(asked.run),
        "pid": started.pid,
        "wait_pid": started.wait_pid,
        "started_at": time.time() if asked.start else 0.0,
        "terminal": asked.terminal,
        "stdin_once": asked.stdin_once,
        "log": plan,
        "attach": [a.to_wire() for a in asked.attach],
        "hook_timeout": asked.hook_timeout,
        "fds": list(given),
    }
    return birth, list(given.values())


def _watch_memory(pid: int) -> int:
    """A descriptor that tells of kills for want of memory in the process's cgroup, or -1."""
    try:
        return cgroup_oom.open_watch(Cgroup.of_process(pid))
    except OSError:
        return -1  # it has ended, or this host cannot tell


def first_state(birth: Birth, monitor_pid: int) -> wire.Message:
    """What a monitor says of its container at first."""
    return {
        "container": birth["container"],
        "status": "running" if birth["started_at"] else "created",
        "pid": birth["pid"],
        "monitor_pid": monitor_pid,
        "started_at": birth["started_at"],
        "execs": {},
        "finished": {},
    }


def _start(isolation: Isolation, container: Container) -> None:
    """Start; a program that cannot be executed leaves the exit status that shells give it."""
    try:
        isolation.start(container=container)
    except StartFailed as error:
        code = 127 if error.errno == errno.ENOENT else 126
        write_exit(container.state.parent, Exit(code, finished_at=rfc3339(time.time_ns())))
        raise


def execute(
    isolation: Isolation,
    container: Container,
    oci: Mapping[str, Any],
    stdio: Stdio,
    sock: socket.socket,
    operation: str,
    in_time: tuple[str, float],
) -> None:
    """Run one more process in a container; ``in_time`` names the backend and its timeout."""
    # A monitor is protected from the OOM killer, its container is not.
    process.oom_score_adj(0)
    with operations.within(operation), _in_time(*in_time):
        started = isolation.exec(container=container, process=oci, stdio=stdio)
    fds = [started.console] if started.console >= 0 else []
    wire.send_to_kin(sock, {"pid": started.pid, "wait_pid": started.wait_pid}, fds)


def as_birth(message: wire.Message) -> Birth:
    """The message that :func:`launch` has sent, under its type."""
    return cast(Birth, message)
