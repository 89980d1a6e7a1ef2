"""The daemon's side: handles for the spawner and for monitors."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lading import operations
from lading.errors import Conflict, NotFound, Unavailable, from_wire
from lading.monitor import dispatch, wire
from lading.monitor.exit import read_exit
from lading.monitor.launch import (
    AttachSpec,
    Exit,
    MonitorEvent,
    State,
)

log = logging.getLogger(__name__)

#: Exits of execs that a handle remembers for ``exec_wait``.
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class ExecStarted:
    """A process that runs in a container beside its init; ``stream`` as of ``attach``, or None."""

    pid: int
    stream: socket.socket | None


class _Call:
    """A request on its way: set when the answer is there, or the connection is gone."""

    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: wire.Message | None = None


class Monitor:
    """The daemon's connection to one monitor. All methods are thread safe."""

    def __init__(
        self, run: Path, connection: socket.socket, receiver: wire.Receiver, state: State
    ) -> None:
        self.container = state.container
        self.pid = state.pid
        self.monitor_pid = state.monitor_pid
        self.started_at = state.started_at
        self._run = run
        self._connection = connection
        self._receiver = receiver
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._serial = 0
        self._exit: Exit | None = None
        self._gone = False
        self._exec_exits: OrderedDict[str, Exit] = OrderedDict(state.finished)
        self._callbacks: list[Callable[[MonitorEvent], None]] = []
        self._untold: list[MonitorEvent] = []
        self._take_messages()
        dispatch.monitors.add(self)

    @classmethod
    def connect(cls, run: Path) -> Monitor:
        """Connect to the monitor of a container that outlived its daemon.

        Raises NotFound when there is none any more: see then what :func:`read_exit` says.
        """
        connection = _connect(run)
        try:
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, uid, _ = struct.unpack("3i", peer)
            if uid != os.geteuid():
                raise NotFound(f'the socket in "{run}" belongs to a process of user {uid}')
            wire.send(connection, {"op": "subscribe", "id": 0})
            receiver = wire.Receiver(connection)
            answer, _ = receiver.receive()
        except Unavailable as error:
            connection.close()
            raise NotFound(f'the monitor of "{run}" has ended') from error
        except BaseException:
            connection.close()
            raise
        return cls(run, connection, receiver, state_of(answer))

    def state(self) -> State:
        """Ask for the present state."""
        return state_of(self._call("state"))

    def start(self) -> None:
        """Let the created container's program run; returns when it does.

        Raises what the backend's ``start`` raised (StartFailed ...); the monitor ends then.
        Raises Conflict when it was started before.
        """
        answer = self._call("start")
        self.started_at = answer["started_at"]

    def wait(self, timeout: float | None = None) -> Exit:
        """Block until the container has ended; any number of threads may.

        Raises TimeoutError, and Unavailable when the monitor was lost without a status, or the
        connection closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._exit or self._gone, timeout):
                raise TimeoutError(f'container "{self.container}" has not ended')
        if self._exit is None:
            raise Unavailable(f'the connection to the monitor of "{self.container}" was lost')
        return self._exit

    def on_event(self, callback: Callable[[MonitorEvent], None]) -> None:
        """Call back for each event, those from before the first such call included.

        Callbacks run one after another in a thread that serves all monitors: they must be short.
        """
        with self._changed:
            self._callbacks.append(callback)
            untold, self._untold = self._untold, []
        for event in untold:
            callback(event)

    def attach(
        self,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: bytes | None = None,
        exec_id: str = "",
    ) -> socket.socket:
        """Attach to the streams of the container, or of an exec; returns the daemon's end.

        It yields Docker's frames, or raw bytes of a terminal, from now on until EOF; what is
        written to it goes to stdin. Whoever holds it and does not read stalls the container.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            spec = AttachSpec("attach", stdin, stdout, stderr, detach_keys)
            try:
                self._attach(theirs.fileno(), spec, exec_id)
            except BaseException:
                ours.close()
                raise
        return ours

    def attach_descriptor(self, client: int, spec: AttachSpec, exec_id: str = "") -> None:
        """Hand a client's own socket over; the caller closes its copy and is done with it.

        Only for plain sockets. ``spec.fd`` is not used.
        """
        self._attach(client, spec, exec_id)

    def resize(self, rows: int, columns: int, exec_id: str = "") -> None:
        """Set the size of the terminal of the container or of an exec; Conflict without one."""
        self._call("resize", {"rows": rows, "columns": columns, "exec_id": exec_id})

    def close_stdin(self, exec_id: str = "") -> None:
        """Close the standard input, as if the one attached client had."""
        self._call("close_stdin", {"exec_id": exec_id})

    def exec(
        self,
        exec_id: str,
        process: Mapping[str, Any],
        *,
        stdin: bool = False,
        attach: AttachSpec | None = None,
        client: int = -1,
    ) -> ExecStarted:
        """Run one more process in the container; returns when it has been executed.

        ``process`` is an OCI process object. ``stdin`` opens its standard input (else
        /dev/null). ``attach`` names the streams wanted, from the first byte on: on the returned
        socket, or on the descriptor ``client`` when one is given. Raises what the backend's
        ``exec`` raised (StartFailed, Conflict).
        """
        request = {
            "exec_id": exec_id,
            "process": process,
            "stdin": stdin,
            "attach": None if attach is None else attach.to_wire(),
        }
        if attach is None or client >= 0:
            answer = self._call("exec", request, [client] if attach is not None else [])
            return ExecStarted(answer["pid"], None)
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            with theirs:
                answer = self._call("exec", request, [theirs.fileno()])
            undo.pop_all()
        return ExecStarted(answer["pid"], ours)

    def exec_wait(self, exec_id: str, timeout: float | None = None) -> Exit:
        """Block until an exec has ended. Raises TimeoutError, and Unavailable as ``wait`` does."""
        with self._changed:
            known = self._changed.wait_for(
                lambda: exec_id in self._exec_exits or self._gone, timeout
            )
            if not known:
                raise TimeoutError(f'exec "{exec_id}" has not ended')
            if exec_id not in self._exec_exits:
                raise Unavailable(f'the exit status of exec "{exec_id}" was lost')
            return self._exec_exits[exec_id]

    def close(self) -> None:
        """Give the connection up; the container goes on. A second call does nothing.

        Whoever still waits for something gets Unavailable or Conflict.
        """
        if self._connection.fileno() >= 0:
            dispatch.monitors.remove(self)
            self._receiver.close()
            self._connection.close()
            self._release()

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._connection.fileno()

    def on_readable(self) -> bool:
        """Take what the monitor has sent; called by the dispatcher's thread only."""
        try:
            alive = self._receiver.read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            alive = False
        self._take_messages()
        if not alive:
            self._lose()
        return alive

    def _attach(self, fd: int, spec: AttachSpec, exec_id: str) -> None:
        self._call("attach", {"attach": spec.to_wire(), "exec_id": exec_id}, [fd])

    def _call(
        self, op: str, members: Mapping[str, Any] | None = None, fds: Sequence[int] = ()
    ) -> wire.Message:
        call = _Call()
        with self._changed:
            self._serial += 1
            serial = self._serial
            if self._gone or self._connection.fileno() < 0:
                raise Conflict(f'container "{self.container}" is not running')
            self._calls[serial] = call
        try:
            with self._sending:
                envelope = {"op": op, "id": serial, "operation": operations.current()}
                wire.send(self._connection, {**(members or {}), **envelope}, fds)
            call.done.wait()
        except OSError as error:
            raise Conflict(f'container "{self.container}" is not running') from error
        finally:
            with self._changed:
                self._calls.pop(serial, None)
        if call.answer is None:
            raise Conflict(f'container "{self.container}" ended meanwhile')
        if "error" in call.answer:
            raise from_wire(call.answer["error"])
        return call.answer

    def _take_messages(self) -> None:
        while (found := self._receiver.next()) is not None:
            message, _ = found
            if "event" in message:
                self._tell(_event(self.container, message))
                continue
            with self._changed:
                call = self._calls.get(message["id"])
            if call is not None:
                call.answer = message
                call.done.set()

    def _tell(self, event: MonitorEvent) -> None:
        with self._changed:
            if event.kind == "exit":
                self._exit = event.exit
            elif event.kind == "exec-exit" and event.exit is not None:
                self._exec_exits[event.exec_id] = event.exit
                if len(self._exec_exits) > _REMEMBERED:
                    self._exec_exits.popitem(last=False)
            if not self._callbacks:
                self._untold.append(event)
            callbacks = tuple(self._callbacks)
            self._changed.notify_all()
        for callback in callbacks:
            try:
                callback(event)
            except Exception:
                log.exception('event "%s" of container "%s"', event.kind, self.container)

    def _lose(self) -> None:
        if self._exit is None and (status := read_exit(self._run)) is not None:
            self._tell(MonitorEvent("exit", self.container, exit=status))
        elif self._exit is None:
            self._tell(MonitorEvent("lost", self.container))
        self._release()

    def _release(self) -> None:
        with self._changed:
            self._gone = True
            calls = list(self._calls.values())
            self._changed.notify_all()
        for call in calls:
            call.done.set()


def state_of(wire_state: Mapping[str, Any]) -> State:
    return State(
        wire_state["container"],
        wire_state["status"],
        wire_state["pid"],
        wire_state["monitor_pid"],
        wire_state["started_at"],
        wire_state["execs"],
        {k: Exit.from_wire(v) for k, v in wire_state["finished"].items()},
    )


def _event(container: str, message: Mapping[str, Any]) -> MonitorEvent:
    status = message.get("exit")
    return MonitorEvent(
        message["event"],
        container,
        message.get("exec_id", ""),
        None if status is None else Exit.from_wire(status),
    )


def _connect(run: Path) -> socket.socket:
    """Connect by way of the directory's descriptor: socket paths end at 107 bytes."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        directory = os.open(run, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{directory}/monitor.sock")
        finally:
            os.close(directory)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NotFound(f'no monitor answers in "{run}": {error.strerror}') from error
    return connection
