"""The daemon's handle of a task: one function call in a process forked by the spawner."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lading.errors import Cancelled, Unavailable, from_wire
from lading.monitor import wire


class Task:
    """A running task. All methods are thread safe; the result is kept for any number of waiters."""

    def __init__(self, function: str, connection: socket.socket) -> None:
        self.function = function
        self._connection = connection
        self._receiver = wire.Receiver(connection)
        self._lock = threading.Lock()
        self._cancelled = False
        self._done = False
        self._result: Any = None
        self._error: Exception | None = None
        hello, _ = self._receiver.receive()
        if "error" in hello:
            raise from_wire(hello["error"])
        self.pid: int = hello["pid"]
        # The process is alive, it waits for the request: the descriptor is surely of it, whoever
        # has its pid later.
        self._pidfd = os.pidfd_open(self.pid)

    def begin(self, request: Mapping[str, Any], fds: Sequence[int]) -> None:
        """Tell the process what to do; called once, by the spawner's handle."""
        wire.send(self._connection, request, fds)

    def wait(self, timeout: float | None = None) -> Any:
        """Block for the result; raises the LadingError or OSError that the function raised.

        Any other exception of it arrives as a LadingError with its type and text. Raises
        TimeoutError, Cancelled after :meth:`cancel`, Unavailable when the process was killed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not self._done:
                self._step(deadline)
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Kill the task and what it has started, unless it is done; does not wait for its end."""
        self._cancelled = True
        if self._done:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            return

    def close(self) -> None:
        """Cancel, unless it is done, and let the descriptors go. A second call does nothing."""
        self.cancel()
        with self._lock:
            self._finish(Cancelled(f'task "{self.function}" was given up'))

    def fileno(self) -> int:
        """A descriptor that becomes readable when the task has ended; -1 once that was seen."""
        return self._connection.fileno()

    def _step(self, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left):
            raise TimeoutError(f'task "{self.function}" is not done')
        try:
            alive = self._receiver.read()
        except ConnectionError:
            alive = False
        found = self._receiver.next()
        if found is not None:
            self._take(found[0])
        elif not alive and self._cancelled:
            self._finish(Cancelled(f'task "{self.function}" was cancelled'))
        elif not alive:
            self._finish(Unavailable(f'task "{self.function}" was killed before it was done'))

    def _take(self, message: wire.Message) -> None:
        if "error" in message:
            error = from_wire(message["error"])
            # What the child's traceback said, for the log; a user sees only the message.
            error.add_note(message["trace"])
            self._finish(error)
        else:
            self._result = message["result"]
            self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        if self._done:
            return
        self._error = error
        self._done = True
        os.close(self._pidfd)
        self._receiver.close()
        self._connection.close()
