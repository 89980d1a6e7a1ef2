"""The monitor process: parent of a container's init, keeper of its streams, log and exit status.

Single-threaded, one loop. It is born of the spawner for one life of one container::

    created ──start──▶ running ──the init ends, its output is logged──▶ stopped
                                                                           │ exit.json, then events
    ends itself when the last exec has ended and the last client has its output

Nothing in here waits for the daemon: a daemon that is gone, or does not read, is left alone.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from lading.errors import Conflict, Invalid, NotFound, Unavailable
from lading.hooks.isolation import Container, Isolation
from lading.linux.cgroup_oom import Watch
from lading.monitor import process, wire
from lading.monitor.control import Control
from lading.monitor.exit import write_exit
from lading.monitor.launch import AttachSpec, Exit, rfc3339
from lading.monitor.logfile import JsonFile, Log, NoLog
from lading.monitor.loop import IN, Loop
from lading.monitor.relay import Relay
from lading.monitor.starter import CONTROL, Birth, Starter, as_birth, execute, first_state, launch
from lading.monitor.stdio import Ends, resize
from lading.monitor.streams import Streams

if TYPE_CHECKING:
    from lading.backends import Loaded

#: Ended execs whose exit a monitor remembers for a daemon that comes back.
_REMEMBERED: Final = 64
#: A backend that takes longer to tell whether memory ended counts as one that cannot tell.
_STATS_SECONDS: Final = 2.0
#: Less likely to be killed for want of memory than any container; 0 is what containers start from.
_PROTECTED: Final = -999


def run(request: socket.socket, backends: Mapping[str, Loaded[Isolation]]) -> None:
    """Wait for a connection to the daemon on ``request``, and be the monitor it asks for.

    Returns when the container is gone, or when the spawner ends before there was a request.
    """
    process.set_name("lading-ready")
    process.become_subreaper()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 2)
    os.close(null)
    starter = Starter(lambda sock: launch(backends, request, sock))
    request.close()
    try:
        message, fds = starter.answer()
    except Unavailable:
        return  # nothing came of it, and the daemon has been told
    process.set_name(process.MONITOR)
    birth = as_birth(message)
    try:
        named = dict(zip(birth["fds"], fds, strict=True))
        connection = socket.socket(fileno=named.pop(CONTROL))
        monitor = _Monitor(birth, named, backends, starter)
        monitor.serve(connection)
    except BaseException as error:
        import traceback  # only a monitor that fails needs it

        report = "".join(traceback.format_exception(error))
        Path(birth["run"], "monitor.log").write_text(report)
        raise


class _Process:
    """A process of the container with its streams: the init or an exec."""

    __slots__ = ("console", "pid", "streams")

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.pid = 0
        self.console = -1


class _Monitor:
    def __init__(
        self,
        birth: Birth,
        fds: dict[str, int],
        backends: Mapping[str, Loaded[Isolation]],
        starter: Starter,
    ) -> None:
        self._birth = birth
        self._backends = backends
        self._children: dict[int, Callable[[int], None]] = {birth["wait_pid"]: self._init_ended}
        self._execs: dict[str, _Process] = {}
        self._finished: dict[str, Exit] = {}
        self._status = "created"
        self._started_at = 0.0
        self._starter = starter
        self._loop = Loop()
        self._watch_children()
        listener = socket.socket(fileno=fds.pop("listener"))
        self._control = Control(self._loop, listener, birth["run"], self._handle)
        log = fds.pop("log", -1)
        self._log: Log = NoLog() if log < 0 else JsonFile(log, *birth["log"])
        self._init = self._process(
            self._log, "", terminal=birth["terminal"], input_once=birth["stdin_once"]
        )
        self._init.pid = birth["pid"]
        clients = [AttachSpec.from_wire(a) for a in birth["attach"]]
        self._open(self._init, fds)
        oom = fds.pop("oom", -1)
        self._oom = None if oom < 0 else Watch(oom)
        if self._oom is not None:
            self._loop.watch(oom, self._oom.events, self._on_oom)
        for spec in clients:
            self._attach(self._init, fds.pop(spec.fd), spec)
        self._relay: Relay | None = None
        if (ready := fds.pop("relay", -1)) >= 0:
            report = Path(birth["run"], "relay.log")
            adopt = self._children.__setitem__
            self._relay = Relay(self._loop, ready, fds.pop("relayed"), adopt, report)
        #: Only kept open as long as the container lives.
        self._held = list(fds.values())
        if birth["started_at"]:
            self._running(birth["started_at"])

    def serve(self, connection: socket.socket) -> None:
        """Run until there is nothing left to do; the launch's connection is a control one now."""
        self._control.adopt(connection)
        process.oom_score_adj(_PROTECTED)
        self._reap()  # what ended before we listened
        while not self._idle():
            self._loop.step()

    @property
    def _isolation(self) -> Isolation:
        return self._backends[self._birth["isolation"]].hook

    @property
    def _container(self) -> Container:
        run = Path(self._birth["run"])
        return Container(self._birth["container"], Path(self._birth["bundle"]), run / "state")

    # -- the processes

    def _process(self, sink: Log, exec_id: str, *, terminal: bool, input_once: bool) -> _Process:
        return _Process(
            Streams(
                self._loop,
                sink,
                terminal=terminal,
                input_once=input_once,
                detached=lambda: self._tell("detach", exec_id),
            )
        )

    def _watch_children(self) -> None:
        """SIGCHLD wakes the loop by a pipe: orphans of the container come to us as well."""
        self._wake, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _ignore)
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

    def _open(self, target: _Process, fds: dict[str, int]) -> None:
        """Take the process's console, or its pipes, from among the descriptors."""
        console = fds.pop("console", -1)
        if console >= 0:
            target.console = console
            target.streams.open(os.dup(console), os.dup(console), -1)
        else:
            target.streams.open(*(fds.pop(name, -1) for name in ("stdin", "stdout", "stderr")))

    def _on_oom(self, events: int) -> None:
        assert self._oom is not None
        try:
            for _ in range(self._oom.new()):
                self._tell("oom", "")
        except OSError:
            self._forget_oom()  # the cgroup is gone

    def _forget_oom(self) -> None:
        if self._oom is not None:
            self._loop.forget(self._oom.descriptor)
            os.close(self._oom.descriptor)
            self._oom = None

    def _running(self, since: float) -> None:
        self._started_at = since
        self._status = "running"
        self._starter.close()

    def _init_ended(self, status: int) -> None:
        found = _exit(status)
        self._init.streams.end(lambda: self._stop(found), self._nudge)

    def _stop(self, found: Exit) -> None:
        self._log.close()
        if found.code and self._oom_killed():
            found = Exit(found.code, found.signal, True, found.finished_at)
        self._write_exit(found)
        self._status = "stopped"
        self._forget_oom()
        if self._relay is not None:
            self._relay.close()
        for fd in self._held:
            os.close(fd)
        self._close_console(self._init)
        # From here on the directory may be another monitor's.
        self._control.stop_listening()
        self._starter.close()
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
            with process.deadline(_STATS_SECONDS):
                return self._isolation.stats(container=self._container).oom_kills > 0
        except Exception:
            return False  # the cgroup is gone, or the backend cannot tell, or not in time

    def _write_exit(self, found: Exit) -> None:
        try:
            write_exit(Path(self._birth["run"]), found)
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
        if self._status != "created":
            raise Conflict(f'container "{self._birth["container"]}" is {self._status}')
        self._starter.proceed(message.get("operation", ""))
        self._running(time.time())
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
            raise Conflict(f'container "{self._birth["container"]}" is {self._status}')
        if exec_id in self._execs:
            raise Conflict(f'exec "{exec_id}" exists already')
        terminal = bool(oci.get("terminal"))
        attach = message["attach"]
        target = self._process(NoLog(), exec_id, input_once=True, terminal=terminal)
        with Ends(terminal=terminal, stdin=message["stdin"], discard=attach is None) as ends:
            starter = Starter(
                lambda sock: execute(
                    self._isolation,
                    self._container,
                    oci,
                    ends.stdio,
                    sock,
                    message.get("operation", ""),
                    (self._birth["isolation"], self._birth["hook_timeout"]),
                )
            )
            ends.close_remote()
            try:
                started, consoles = starter.answer()
            finally:
                starter.close()
            self._execs[exec_id] = target
            target.pid = started["pid"]
            self._children[started["wait_pid"]] = lambda status: self._exec_ended(exec_id, status)
            names = ("console",) if terminal else ("stdin", "stdout", "stderr")
            self._open(target, dict(zip(names, consoles or ends.take(), strict=False)))
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
            **first_state(self._birth, os.getpid()),
            "status": self._status,
            "started_at": self._started_at,
            "execs": {exec_id: e.pid for exec_id, e in self._execs.items()},
            "finished": {exec_id: e.to_wire() for exec_id, e in self._finished.items()},
        }

    def _tell(self, kind: str, exec_id: str, found: Exit | None = None) -> None:
        message: wire.Message = {"event": kind, "exec_id": exec_id}
        if found is not None:
            message["exit"] = found.to_wire()
        self._control.tell(message)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The handler of signals that mean nothing to a monitor."""


def _exit(status: int) -> Exit:
    now = rfc3339(time.time_ns())
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Exit(128 + number, number, False, now)
    return Exit(os.WEXITSTATUS(status), 0, False, now)
