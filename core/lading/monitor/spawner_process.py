"""The spawner process: small, single-threaded, forks a monitor or a task when told to.

It does no more than fork for a request. The request itself is read by the child, on a socket of
its own that the daemon made for it, so that nothing which one container does can delay another.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import FrameType
from typing import Any

from lading.backends import Loaded, Origin, assemble
from lading.errors import to_wire
from lading.hooks import Context
from lading.hooks.isolation import Isolation
from lading.linux import syscalls
from lading.linux.namespaces import unshare_mounts
from lading.monitor import monitor, process, wire
from lading.monitor.launch import IsolationSpec
from lading.monitor.logfile import NoLog
from lading.monitor.loop import Loop
from lading.monitor.starter import Starter
from lading.monitor.streams import Streams

Backends = Mapping[str, Loaded[Isolation]]


#: After this long without a request a monitor is forked ahead; a start is over by then.
_QUIET_SECONDS = 0.02
#: What must end neither the spawner nor a monitor.
_MEANINGLESS = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGPIPE, signal.SIGXFSZ),
)


def main(control: int) -> None:
    """Serve the daemon on the socket ``control`` until it is gone."""
    # Only the interpreter needed these.
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "MALLOC_TOP_PAD_"):
        os.environ.pop(name, None)
    os.closerange(3, control)
    os.closerange(control + 1, os.sysconf("SC_OPEN_MAX"))
    process.set_name("lading-spawner")
    sock = socket.socket(fileno=control)
    os.set_inheritable(control, False)
    settings = json.loads(sock.recv(1 << 18))
    failed: dict[str, str] = {}
    backends = _load(settings, failed)
    # Children are not waited for here: each answers the daemon itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in _MEANINGLESS:
        signal.signal(number, _ignore)
    _rehearse()
    sock.send(json.dumps({"failed": failed}).encode())
    del settings, failed
    gc.collect()
    gc.freeze()
    _serve(sock, backends)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """A handler, not SIG_IGN: that would be inherited through execve by containers."""


def _rehearse() -> None:
    """Go once through what each monitor begins with.

    The interpreter notes in its objects what it learns while it runs them. What it learns here
    is shared by all monitors; what it would learn in a monitor becomes that one's own memory.
    """
    process.become_subreaper()
    starter = Starter(lambda sock: wire.send_to_kin(sock, {}, [sock.fileno()]))
    _, fds = starter.answer()
    starter.close()
    os.close(fds[0])
    loop = Loop()
    streams = Streams(loop, NoLog(), terminal=False, input_once=False, detached=_nothing)
    reads, writes = os.pipe()
    streams.open(-1, reads, -1)
    os.write(writes, b"x")
    loop.later(0, _nothing)
    loop.step()
    os.close(writes)
    streams.end(_nothing, _nothing)
    loop.close()


def _nothing() -> None:
    """What a rehearsal leads to."""


def _load(settings: Mapping[str, Any], failed: dict[str, str]) -> Backends:
    extensions = []
    for spec in map(IsolationSpec.from_wire, settings["extensions"]):
        if (extension := _assemble(spec, (), failed)) is not None:
            extensions.append(extension.hook)
    backends = {}
    for spec in map(IsolationSpec.from_wire, settings["backends"]):
        if (backend := _assemble(spec, extensions, failed)) is not None:
            backends[spec.name] = backend
    for module in settings["preload"]:
        try:
            import_module(module)
        except Exception as error:
            failed[module] = f"{type(error).__name__}: {error}"
    return backends


def _assemble(spec: IsolationSpec, wrappers: Any, failed: dict[str, str]) -> Loaded[Any] | None:
    origin = Origin(spec.role, spec.name, spec.target, spec.distribution)
    try:
        context = Context(spec.name, spec.data, spec.run, spec.options)
        return assemble(origin, context, wrappers, probe=False)
    except Exception as error:
        failed[spec.name] = f"{type(error).__name__}: {error}"
        return None


def _serve(control: socket.socket, backends: Backends) -> None:
    forks = _Forks(control, backends)
    while True:
        if not select.select([control], (), (), _QUIET_SECONDS)[0]:
            forks.make_ready()
        kind, fds = wire.receive(control, 16)
        if kind == b"retire":
            forks.finish()
        if not fds:
            return
        connection = socket.socket(fileno=fds[0])
        try:
            if kind == b"monitor":
                forks.monitor(connection)
            else:
                forks.task(connection)
        except OSError as error:
            wire.send(connection, {"error": to_wire(error), "trace": ""})
        connection.close()


class _Forks:
    """Forks for requests, each of which comes as a connection to the daemon.

    A monitor and its starter are forked in a quiet moment and wait for the next request: nobody
    waits for the forks then. They end when the spawner does.
    """

    def __init__(self, control: socket.socket, backends: Backends) -> None:
        self._control = control
        self._backends = backends
        self._parent = os.getpid()
        self._ready: socket.socket | None = None
        self._tasks: set[int] = set()

    def make_ready(self) -> None:
        """Fork the monitor that takes the next request, unless there is one."""
        if self._ready is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._fork(lambda: monitor.run(theirs, self._backends), ours)
        self._ready = ours

    def monitor(self, connection: socket.socket) -> None:
        """Have a monitor take a request. Raises OSError."""
        while True:
            fresh = self._ready is None
            self.make_ready()
            assert self._ready is not None
            with self._ready as request:
                self._ready = None
                try:
                    socket.send_fds(request, [b"."], [connection.fileno()])
                    return
                except BrokenPipeError:
                    # Whoever waited was killed.
                    if fresh:
                        raise

    def task(self, connection: socket.socket) -> None:
        """Fork a task for a request. Raises OSError."""
        self._tasks = set(filter(_lives, self._tasks))
        self._tasks.add(self._fork(lambda: _run_task(connection, self._parent), self._ready))

    def finish(self) -> None:
        """Wait for the tasks, which end with this process, or for the daemon's end."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        left = {os.pidfd_open(pid) for pid in self._tasks if _lives(pid)}
        for pidfd in left:
            poll.register(pidfd, select.POLLIN)
        while left:
            for descriptor, _ in poll.poll():
                if descriptor not in left:
                    return
                poll.unregister(descriptor)
                left.remove(descriptor)

    def _fork(self, work: Callable[[], None], parents: socket.socket | None) -> int:
        """Fork a process that closes a socket of its parent's, does ``work`` and ends; its pid."""
        if (pid := syscalls.fork()) != 0:
            return pid
        status = 1
        try:
            self._control.close()
            if parents is not None:
                parents.close()
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)


def _lives(pid: int) -> bool:
    """Whether a child is there still: the kernel reaps them, for SIGCHLD is ignored."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _run_task(connection: socket.socket, parent: int) -> None:
    process.die_with_parent(parent)
    process.set_name("lading-task")
    for number in _MEANINGLESS:
        # Python's own choice for the last two: they arrive as OSError then.
        ours = number in (signal.SIGPIPE, signal.SIGXFSZ)
        signal.signal(number, signal.SIG_IGN if ours else signal.SIG_DFL)
    wire.send(connection, {"pid": os.getpid()})
    request, fds = wire.Receiver(connection).receive()
    try:
        if request["mount_namespace"]:
            unshare_mounts()
        module, _, name = request["function"].partition(":")
        result = getattr(import_module(module), name)(request["args"], fds)
        wire.send(connection, {"result": result})
    except BaseException as error:
        import traceback  # only a failed task needs it

        wire.send(connection, {"error": to_wire(error), "trace": traceback.format_exc()})
