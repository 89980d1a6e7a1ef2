"""What callers ask of a container's streams, and what they get back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lading.containers.records import Container, Size
from lading.model.docker import ContainerConfig


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """``POST /containers/X/attach``: which streams, and whether what was logged comes first."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    logs: bool = False
    stream: bool = True
    detach_keys: str = ""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``GET /containers/X/logs``; times in nanoseconds since 1970, ``tail`` < 0 means all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int = -1
    timestamps: bool = False
    details: bool = False


class Stream(Protocol):
    """A process's standard streams, to be connected to one client.

    Checked already: what can be wrong has been raised before the client is answered. What flows
    are Docker's frames with an 8-byte header each, or a terminal's raw bytes when ``tty``; what
    the client sends goes to stdin, its half-close closes that. Call one of the two methods, once.
    """

    tty: bool

    def connect(self) -> socket.socket:
        """Return this side of a connection, which the caller owns and pumps (TLS clients)."""
        ...

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """Give a plain client socket away: ``head`` (the response's) is written to it first.

        The descriptor is duplicated; the caller closes its own, without shutting it down. Nothing
        that the client has sent may be left in a buffer of the caller's.
        """
        ...


@dataclass(slots=True)
class Output:
    """What is to be streamed, as chunks ready for the wire; ``close`` ends it from any thread."""

    chunks: Iterator[bytes]
    tty: bool
    close: Callable[[], None]


class Wait:
    """A promise of an exit, made before the caller answers its client; see ``Containers.wait``."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._code = 0
        self._error = ""

    def resolve(self, code: int, error: str = "") -> None:
        """Tell the exit code; only the first call counts."""
        if not self._done.is_set():
            self._code, self._error = code, error
            self._done.set()

    def result(self, timeout: float | None = None) -> tuple[int, str]:
        """Block for the exit code and the error text. Raises TimeoutError."""
        if not self._done.wait(timeout):
            raise TimeoutError("the container has not ended yet")
        return self._code, self._error


@dataclass(frozen=True, slots=True)
class ListOptions:
    """``GET /containers/json``; ``filters`` as the API's map of lists."""

    all: bool = False
    limit: int = 0
    size: bool = False
    filters: dict[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """``POST /commit``. ``config`` overrides the container's; ``changes`` are instructions."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: Sequence[str] = ()
    config: ContainerConfig | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of the list: a container, and its size when asked for."""

    container: Container
    size: Size | None = None
