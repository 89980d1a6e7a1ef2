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
_LONGEST_TEXT = 8192


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """Its descriptor."""
        return self.socket.fileno()

    def send(self, message: Message, descriptor: int = -1) -> None:
        """Send a message; the descriptor is copied to the other side."""
        rights = array.array("i", [descriptor]).tobytes() if descriptor >= 0 else b""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        self.socket.sendmsg([json.dumps(message).encode()], ancillary)

    def receive(self) -> tuple[Message | None, int]:
        """The next message and its descriptor (or -1); None when the other side is closed.

        Raises what the other side reports as an error.
        """
        data, ancillary, _, _ = self.socket.recvmsg(
            LARGEST, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
        descriptor = -1
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptor = array.array("i", content[:4])[0]
        if not data:
            return None, descriptor
        message: Message = json.loads(data)
        if "error" in message:
            raise from_wire(message["error"])
        return message, descriptor

    def expect(self, what: str) -> tuple[Message, int]:
        """The next message; LadingError, saying ``what`` was waited for, when there is none."""
        message, descriptor = self.receive()
        if message is None:
            raise LadingError(f"the container's process ended before it was {what}")
        return message, descriptor

    def ask(self, what: str) -> None:
        """Have the other side do something, and wait until it has."""
        self.send({"wants": what})
        self.expect(what)

    def fail(self, error: BaseException, code: int) -> NoReturn:
        """Report an error and end this process at once."""
        try:
            wire = to_wire(error)
            wire["message"] = str(wire["message"])[:_LONGEST_TEXT]
            self.send({"error": wire})
        finally:
            os._exit(code)

    def close(self) -> None:
        """Close this end."""
        self.socket.close()
