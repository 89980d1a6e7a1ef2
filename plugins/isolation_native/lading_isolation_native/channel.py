"""The line between a monitor and what it forks: small JSON messages, with descriptors.

A SEQPACKET socket pair, close-on-exec at both ends: the monitor reads the end of file as the news
that ``execve`` has succeeded.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping
from typing import Any, NoReturn

from lading.errors import LadingError, from_wire, to_wire

Message = Mapping[str, Any]
LARGEST = 1 << 16


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def send(self, message: Message, descriptor: int = -1) -> None:
        """Send a message; the descriptor is copied to the other side."""
        data = json.dumps(message).encode()[:LARGEST]
        rights = array.array("i", [descriptor]).tobytes() if descriptor >= 0 else b""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        self.socket.sendmsg([data], ancillary)

    def receive(self) -> tuple[Message | None, int]:
        """The next message and its descriptor (or -1); None when the other side is closed."""
        data, ancillary, _, _ = self.socket.recvmsg(
            LARGEST, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
        descriptor = -1
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptor = array.array("i", content[:4])[0]
        return (json.loads(data) if data else None), descriptor

    def expect(self, what: str) -> tuple[Message, int]:
        """The next message, which must be of that kind; raises what the other side reports."""
        message, descriptor = self.receive()
        if message is None:
            raise LadingError(f"the container's process ended before it was {what}")
        if "error" in message:
            raise from_wire(message["error"])
        return message, descriptor

    def fail(self, error: BaseException, code: int = 1) -> NoReturn:
        """Report an error and end this process at once."""
        try:
            self.send({"error": to_wire(error)})
        finally:
            os._exit(code)

    def close(self) -> None:
        """Close this end."""
        self.socket.close()
