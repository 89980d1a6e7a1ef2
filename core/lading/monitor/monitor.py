"""The monitor process: parent of a container's init, keeper of its streams, log and exit status.

Single-threaded, one loop. It is born of the spawner for one life of one container::

    created ──start──▶ running ──the init ends, its output is logged──▶ stopped
                                                                           │ exit.json, then events
    ends itself when the last exec has ended and the last client has its output

Nothing in here waits for the daemon: a daemon that is gone, or does not read, is left alone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from lading.errors import Conflict, Invalid, NotFound, Unavailable, to_wire
from lading.hooks.isolation import Container, Isolation
from lading.monitor import process, wire
from lading.monitor.control import Control
from lading.monitor.exit import EXIT_FILE, write_exit
from lading.monitor.launch import AttachSpec, Exit, Launch, rfc3339
from lading.monitor.logfile import NoLog, open_log
from lading.monitor.loop import IN, Loop
from lading.monitor.starter import Starter, create, execute
from lading.monitor.stdio import Ends, resize
from lading.monitor.streams import Streams

if TYPE_CHECKING:
    from lading.backends import Loaded

#: Ended execs whose exit a monitor remembers for a daemon that comes back.
_REMEMBERED: Final = 64
#: Less likely to be killed for want of memory than any container; 0 is what containers start from.
_PROTECTED: Final = -999
#: Milliseconds for an init to end by itself that could not be started.
_ENDING: Final = 500


def run(connection: socket.socket, backends: Mapping[str, Loaded[Isolation]]) -> None:
    """Be the monitor that the request on ``connection`` asks for, until its container is gone."""
    process.set_name("lading-monitor")
    process.become_subreaper()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 2)
    os.close(null)
    receiver = wire.Receiver(connection)
    request, fds = receiver.receive()
    launch = Launch.from_wire(request["launch"])
    named = dict(zip(request["fds"], fds, strict=True))
    try:
        monitor = _Monitor(launch, named, _backend(backends, launch.isolation))
        try:
            monitor.create(connection)
        except BaseException as error:
            monitor.abandon()
            wire.send(connection, {"error": to_wire(error)})
            return
        monitor.adopt(connection, receiver)
        del request, fds, connection, receiver
        monitor.serve()
    except BaseException as error:
        import traceback  # only a monitor that fails needs it

        (launch.run / "monitor.log").write_text("".join(traceback.format_exception(error)))
        raise


def _backend(backends: Mapping[str, Loaded[Isolation]], name: str) -> Isolation | None:
    return backends[name].hook if name in backends else None


class _Process:
    """A process of the container with its streams: the init or an exec."""

    __slots__ = ("console", "pid", "streams")

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.pid = 0
        self.console = -1


class _Monitor:
    def __init__(self, launch: Launch, fds: dict[str, int], isolation: Isolation | None) -> None:
        self._launch = launch
        self._fds = fds
        self._backend = isolation
        self._container = Container(launch.container, launch.bundle, launch.run / "state")
        self._children: dict[int, Callable[[int], None]] = {}
        self._execs: dict[str, _Process] = {}
        self._finished: dict[str, Exit] = {}
        self._status = "created"
        self._started_at = 0.0
        self._starter: Starter | None = None
        self._control: Control | None = None

    @property
    def _isolation(self) -> Isolation:
        if self._backend is None:
            raise Unavailable(
                f'isolation backend "{self._launch.isolation}" is not loaded in the spawner'
            )
        return self._backend

    def create(self, connection: socket.socket) -> None:
        """Make the container, start it when asked to, attach its first clients."""
        launch, isolation = self._launch, self._isolation
        _ignore_signals()
        (launch.run / EXIT_FILE).unlink(missing_ok=True)
        with Ends(terminal=launch.terminal, stdin=launch.open_stdin) as ends:

            def work(sock: socket.socket) -> None:
                connection.close()
                ends.close_local()
                for fd in self._fds.values():
                    os.close(fd)
                create(isolation, launch, ends.stdio, sock)

            # First of all: the child should inherit nothing, and works while we set ourselves up.
            self._starter = Starter(work)
            ends.close_remote()
            self._prepare()
            message, console = self._starter.answer()
            self._init.pid = message["pid"]
            self._children[message["wait_pid"]] = self._init_ended
            self._open(self._init, ends, console)
        if launch.start:
            self._running()
        for spec in launch.attach:
            self._attach(self._init, self._fds.pop(spec.fd), spec)

    def _prepare(self) -> None:
        self._loop = Loop()
        self._log = open_log(self._launch.log)
        self._init = self._process(self._log, "", input_once=self._launch.stdin_once)
        self._watch_children()
        self._control = Control(self._loop, self._launch.run, self._handle)
        process.oom_score_adj(_PROTECTED)

    def abandon(self) -> None:
        """Nothing came of it: leave an exit status if there was a process, and no socket."""
        if self._starter is not None:
            self._starter.close()
            if self._starter.wait_pid:
                # It becomes our child when the starter has ended.
                os.waitpid(self._starter.pid, 0)
                self._write_exit(_exit(_await(self._starter.wait_pid)))
        if self._control is not None:
            self._control.stop_listening()

    def adopt(self, connection: socket.socket, receiver: wire.Receiver) -> None:
        """Answer the launch; what it came on is a control connection from now on."""
        wire.send(connection, self._state())
        assert self._control is not None
        self._control.adopt(connection, receiver)

    def serve(self) -> None:
        """Run until there is nothing left to do."""
        self._reap()  # what ended before we listened
        while not self._idle():
            self._loop.step()

    # -- the processes

    def _process(
        self, sink: Any, exec_id: str, *, input_once: bool, terminal: bool | None = None
    ) -> _Process:
        return _Process(
            Streams(
                self._loop,
                sink,
                terminal=self._launch.terminal if terminal is None else terminal,
                input_once=input_once,
                detached=lambda: self._tell("detach", exec_id),
            )
        )

    def _watch_children(self) -> None:
        """SIGCHLD wakes the loop by a pipe: orphans of the container come to us as well."""
        self._wake, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        self._loop.watch(self._wake, IN, self._on_wake)

    def _on_wake(self, events: int) -> None:
        os.read(self._wake, 4096)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._children.pop(pid, None)
            if ended is not None:
                ended(status)

    def _open(self, target: _Process, ends: Ends, console: int) -> None:
        if console >= 0:
            target.console = console
            target.streams.open(os.dup(console), os.dup(console), -1)
        else:
            target.streams.open(*ends.take())

    def _running(self) -> None:
        self._started_at = time.time()
        self._status = "running"
        if self._starter is not None:
            self._starter.close()
            self._starter = None

    def _init_ended(self, status: int) -> None:
        found = _exit(status)
        self._init.streams.end(lambda: self._stop(found), self._nudge)

    def _stop(self, found: Exit) -> None:
        self._log.close()
        if found.code and self._oom_killed():
            found = Exit(found.code, found.signal, True, found.finished_at)
        self._write_exit(found)
        self._status = "stopped"
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._close_console(self._init)
        # From here on the directory may be another monitor's.
        if self._control is not None:
            self._control.stop_listening()
        self._tell("exit", "", found)

    def _exec_ended(self, exec_id: str, status: int) -> None:
        found = _exit(status)
        self._execs[exec_id].streams.end(lambda: self._exec_over(exec_id, found), self._nudge)

    def _exec_over(self, exec_id: str, found: Exit) -> None:
        self._finished[exec_id] = found
        if len(self._finished) > _REMEMBERED:
            del self._finished[next(iter(self._finished))]
        self._close_console(self._execs[exec_id])
        self._tell("exec-exit", exec_id, found)

    def _nudge(self) -> None:
        """Forget the execs that are over and have no clients left."""
        for exec_id in [i for i, e in self._execs.items() if e.streams.idle]:
            del self._execs[exec_id]

    def _idle(self) -> bool:
        return self._status == "stopped" and self._init.streams.idle and not self._execs

    def _oom_killed(self) -> bool:
        try:
            return self._isolation.stats(container=self._container).oom_kills > 0
        except Exception:
            return False  # the cgroup is gone, or the backend cannot tell

    def _write_exit(self, found: Exit) -> None:
        try:
            write_exit(self._launch.run, found)
        except OSError:
            pass  # the disk is full: who listens is told all the same

    @staticmethod
    def _close_console(target: _Process) -> None:
        if target.console >= 0:
            os.close(target.console)
            target.console = -1

    def _attach(self, target: _Process, fd: int, spec: AttachSpec) -> None:
        target.streams.attach(socket.socket(fileno=fd), spec)

    # -- what the daemon asks

    def _handle(self, message: wire.Message, fds: list[int]) -> wire.Message:
        operations = {
            "state": self._op_state,
            "subscribe": self._op_state,
            "start": self._op_start,
            "attach": self._op_attach,
            "resize": self._op_resize,
            "close_stdin": self._op_close_stdin,
            "exec": self._op_exec,
        }
        try:
            operation = operations.get(message["op"])
            if operation is None:
                raise Invalid(f'monitors know no operation "{message["op"]}"')
            return operation(message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _op_state(self, message: wire.Message, fds: list[int]) -> wire.Message:
        return self._state()

    def _op_start(self, message: wire.Message, fds: list[int]) -> wire.Message:
        if self._status != "created" or self._starter is None:
            raise Conflict(f'container "{self._launch.container}" is {self._status}')
        self._starter.proceed()
        self._running()
        return self._state()

    def _op_attach(self, message: wire.Message, fds: list[int]) -> wire.Message:
        self._attach(self._target(message), fds.pop(0), AttachSpec.from_wire(message["attach"]))
        return {}

    def _op_resize(self, message: wire.Message, fds: list[int]) -> wire.Message:
        target = self._target(message)
        if target.console < 0:
            raise Conflict("resize: the process has no terminal")
        resize(target.console, message["rows"], message["columns"])
        return {}

    def _op_close_stdin(self, message: wire.Message, fds: list[int]) -> wire.Message:
        self._target(message).streams.close_input()
        return {}

    def _op_exec(self, message: wire.Message, fds: list[int]) -> wire.Message:
        exec_id, oci = message["exec_id"], message["process"]
        if self._status != "running":
            raise Conflict(f'container "{self._launch.container}" is {self._status}')
        if exec_id in self._execs:
            raise Conflict(f'exec "{exec_id}" exists already')
        terminal = bool(oci.get("terminal"))
        attach = message["attach"]
        target = self._process(NoLog(), exec_id, input_once=True, terminal=terminal)
        with Ends(terminal=terminal, stdin=message["stdin"], discard=attach is None) as ends:
            size = message["console_size"]
            starter = Starter(
                lambda sock: execute(self._isolation, self._container, oci, ends.stdio, size, sock)
            )
            ends.close_remote()
            try:
                started, console = starter.answer()
            finally:
                starter.close()
            self._execs[exec_id] = target
            target.pid = started["pid"]
            self._children[started["wait_pid"]] = lambda status: self._exec_ended(exec_id, status)
            self._open(target, ends, console)
        if attach is not None:
            self._attach(target, fds.pop(0), AttachSpec.from_wire(attach))
        return {"pid": target.pid}

    def _target(self, message: wire.Message) -> _Process:
        exec_id = message["exec_id"]
        if not exec_id:
            return self._init
        if exec_id not in self._execs:
            raise NotFound(f'no exec "{exec_id}" is running')
        return self._execs[exec_id]

    def _state(self) -> wire.Message:
        return {
            "container": self._launch.container,
            "status": self._status,
            "pid": self._init.pid,
            "monitor_pid": os.getpid(),
            "started_at": self._started_at,
            "execs": {exec_id: e.pid for exec_id, e in self._execs.items()},
            "finished": {exec_id: e.to_wire() for exec_id, e in self._finished.items()},
        }

    def _tell(self, kind: str, exec_id: str, found: Exit | None = None) -> None:
        message: wire.Message = {"event": kind, "exec_id": exec_id}
        if found is not None:
            message["exit"] = found.to_wire()
        if self._control is not None:
            self._control.tell(message)


def _ignore_signals() -> None:
    """Give handlers to signals, not SIG_IGN, which the container's processes would inherit."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, _ignore)
    signal.signal(signal.SIGCHLD, _ignore)
    # A backend's system calls are not Python's, which would be resumed.
    signal.siginterrupt(signal.SIGCHLD, False)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The handler of signals that mean nothing to a monitor."""


def _await(pid: int) -> int:
    """Wait for a child that should be ending by itself, and see to it when it does not."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(_ENDING):
        os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    return os.waitpid(pid, 0)[1]


def _exit(status: int) -> Exit:
    now = rfc3339(time.time_ns())
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Exit(128 + number, number, False, now)
    return Exit(os.WEXITSTATUS(status), 0, False, now)
