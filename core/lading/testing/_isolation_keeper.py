"""The process that stands for a monitor in the isolation kit, and the streams of what it starts."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lading.errors import from_wire, to_wire
from lading.hooks.isolation import Isolation, Started, Stdio
from lading.linux import syscalls


class Keeper:
    """The process that stands for a monitor."""

    def __init__(self, backend: Isolation) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.socket.close()
                syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
                _serve(theirs, backend)
            finally:
                os._exit(0)
        theirs.close()

    def call(self, hook: str, descriptors: Sequence[int] = (), **arguments: Any) -> Any:
        """Call a hook there, with standard streams, and return what it returns or raise."""
        socket.send_fds(self.socket, [pickle.dumps((hook, arguments))], descriptors)
        data, received, _, _ = socket.recv_fds(self.socket, 1 << 16, 1)
        result, error = pickle.loads(data)
        if error is not None:
            raise from_wire(error)
        if isinstance(result, Started):
            return Started(result.pid, result.wait_pid, received[0] if received else -1)
        return result

    def close(self) -> None:
        """End it, also when it waits for a process."""
        self.socket.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(requests: socket.socket, backend: Isolation) -> None:
    while True:
        data, streams, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not data:
            return
        hook, arguments = pickle.loads(data)
        result = error = None
        try:
            if hook == "wait":
                result = os.waitstatus_to_exitcode(os.waitpid(arguments["pid"], 0)[1])
            else:
                if "stdio" in arguments and streams:
                    arguments["stdio"] = Stdio(streams[0], streams[1], streams[2])
                result = getattr(backend, hook)(**arguments)
        except BaseException as failure:
            error = to_wire(failure)
        for descriptor in streams:
            os.close(descriptor)
        console = result.console if isinstance(result, Started) else -1
        answer = pickle.dumps((result, error))
        socket.send_fds(requests, [answer], [console] if console >= 0 else [])
        if console >= 0:
            os.close(console)


@dataclass
class Streams:
    """The test's ends of a process's standard streams."""

    stdin: int
    stdout: int
    stderr: int

    @classmethod
    @contextmanager
    def pipes(cls) -> Iterator[tuple[Streams, list[int]]]:
        """Pipes, and the other ends, which are closed at the end of the block."""
        (in_r, in_w), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
        theirs = [in_r, out_w, err_w]
        try:
            yield cls(in_w, out_r, err_r), theirs
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def finish(self, data: bytes = b"") -> tuple[str, str]:
        """Write the input and read both outputs to their ends."""
        if data:
            os.write(self.stdin, data)
        os.close(self.stdin)
        found = {self.stdout: b"", self.stderr: b""}
        with selectors.DefaultSelector() as selector:
            for descriptor in found:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    part = os.read(key.fd, 1 << 16)
                    found[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        return found[self.stdout].decode(errors="replace"), found[self.stderr].decode(
            errors="replace"
        )

    def line(self) -> str:
        """The next line of the output, read as it comes."""
        found = b""
        while not found.endswith(b"\n"):
            part = os.read(self.stdout, 1)
            if not part:
                break
            found += part
        return found.decode().rstrip("\n")
