"""The daemon's handle of the spawner, the process that forks for it."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lading import operations
from lading.errors import Unavailable, from_wire
from lading.monitor import interpreter, wire
from lading.monitor.client import Monitor, state_of
from lading.monitor.launch import IsolationSpec, Launch
from lading.monitor.task import Task

log = logging.getLogger(__name__)

#: Tells a spawner that another one has taken its place.
RETIRE = b"retire"


class Spawner:
    """The daemon's handle of the process that forks for it. All methods are thread safe."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        #: Backends and extensions that could not be loaded, by name, with the reason.
        self.failed: Mapping[str, str] = {}
        self._process, self._control = self._start(settings)

    @classmethod
    def launch(
        cls,
        *,
        backends: Sequence[IsolationSpec] = (),
        extensions: Sequence[IsolationSpec] = (),
        preload: Sequence[str] = (),
        exec_root: Path = Path("/"),
    ) -> Spawner:
        """Start the spawner and wait until it has everything imported.

        ``backends`` are the isolation backends that monitors may be asked for, ``extensions``
        those that may wrap their hooks, ``preload`` the modules that tasks will use; whatever
        cannot be loaded is in :attr:`failed`, the rest works. Raises Unavailable when the process
        does not come up.
        """
        return cls(
            {
                "backends": [b.to_wire() for b in backends],
                "extensions": [e.to_wire() for e in extensions],
                "preload": list(preload),
                "exec_root": str(exec_root),
            }
        )

    def replace(self, backends: Sequence[IsolationSpec], *, needed: str) -> None:
        """Start another spawner, with what is installed now, and let it take all requests.

        Monitors keep the code that they were forked with; the old spawner ends when its tasks
        have. Raises Unavailable, and changes nothing, when backend ``needed`` does not load.
        """
        settings = {**self._settings, "backends": [b.to_wire() for b in backends]}
        before = self.failed
        process, control = self._start(settings)
        if needed in self.failed:
            reason, self.failed = self.failed[needed], before
            control.close()
            process.wait()
            raise Unavailable(f'isolation backend "{needed}": {reason}')
        with self._lock:
            old = self._process, self._control
            self._process, self._control, self._settings = process, control, settings
        threading.Thread(target=_retire, args=old, name="old spawner", daemon=True).start()

    def _start(self, settings: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = interpreter.start("lading.monitor.spawner_process", theirs.fileno())
        ours.send(json.dumps(settings).encode())
        answer = ours.recv(1 << 16)
        if not answer:
            ours.close()
            status = process.wait()
            raise Unavailable(f"the spawner ended with status {status} at its start")
        self.failed = json.loads(answer)["failed"]
        return process, ours

    @property
    def pid(self) -> int:
        """The spawner's process id."""
        return self._process.pid

    def monitor(self, launch: Launch, fds: Mapping[str, int] | None = None) -> Monitor:
        """Fork a monitor; returns after the backend's ``create`` (and ``start``) succeeded.

        The caller keeps ownership of ``fds``; see :class:`Launch` for their names. Raises what
        the hook raised (LadingError, OSError); there is no monitor then, but after a failed
        ``start`` the backend's ``delete`` is still to be called. Raises Unavailable when the
        spawner is gone.
        """
        names = dict(fds or {})
        connection = self._fork(b"monitor")
        try:
            message = {
                "launch": launch.to_wire(),
                "fds": list(names),
                "operation": operations.current(),
            }
            wire.send(connection, message, list(names.values()))
            receiver = wire.Receiver(connection)
            answer, _ = receiver.receive()
            if "error" in answer:
                raise from_wire(answer["error"])
        except BaseException:
            connection.close()
            raise
        return Monitor(launch.run, connection, receiver, state_of(answer))

    def task(
        self,
        function: str,
        args: Mapping[str, Any],
        fds: Sequence[int] = (),
        *,
        mount_namespace: bool = True,
    ) -> Task:
        """Run ``function`` ("package.module:name") in a process of its own.

        It is called as ``name(args, fds)`` with JSON members and descriptors, which it owns, and
        returns JSON. It runs in its own session with ``/`` as directory, dies with the daemon,
        and with ``mount_namespace`` (needs root) its mounts are private. The caller keeps
        ownership of ``fds``.
        """
        connection = self._fork(b"task")
        try:
            task = Task(function, connection)
            request = {"function": function, "args": args, "mount_namespace": mount_namespace}
            task.begin(request, fds)
        except BaseException:
            connection.close()
            raise
        return task

    def close(self) -> None:
        """End the spawner and its tasks; monitors live on. A second call does nothing."""
        with self._lock:
            self._control.close()
        self._process.wait()

    def _fork(self, kind: bytes) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    self._ask(kind, theirs)
            except OSError as error:
                ours.close()
                raise Unavailable(f"ask the spawner for a {kind.decode()}: {error}") from error
        return ours

    def _ask(self, kind: bytes, connection: socket.socket) -> None:
        """Pass a connection to the spawner, to a new one when it was killed; held by the lock."""
        try:
            socket.send_fds(self._control, [kind], [connection.fileno()])
        except (BrokenPipeError, ConnectionResetError):
            log.error("the spawner ended with status %s: starting another", self._process.wait())
            self._control.close()
            self._process, self._control = self._start(self._settings)
            socket.send_fds(self._control, [kind], [connection.fileno()])


def _retire(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    """Tell a spawner that it is replaced, and wait for its end."""
    try:
        control.send(RETIRE)
    except OSError:
        pass  # it has ended already
    process.wait()
    control.close()
