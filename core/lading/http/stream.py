"""A connection as a stream of bytes each way; one way may end while the other goes on.

Both directions may be used at the same time by two threads, one reading and one writing.
"""

from __future__ import annotations

import socket
from typing import Protocol

CHUNK = 256 * 1024


class Stream(Protocol):
    """What plain and TLS connections have in common."""

    def recv(self, size: int) -> bytes:
        """Wait for some bytes, at most ``size``; none means that the peer will send no more.

        Raises OSError; TimeoutError when nothing came within :meth:`settimeout`.
        """
        ...

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it, waiting for as long as the peer needs. Raises OSError."""
        ...

    def shutdown_write(self) -> None:
        """Tell the peer that no more will be sent; reading goes on. May be repeated."""
        ...

    def shutdown(self) -> None:
        """End both directions at once; a thread that waits in :meth:`recv` returns."""
        ...

    def close(self) -> None:
        """Close it; may be repeated. No thread may be inside another method."""
        ...

    def settimeout(self, seconds: float | None) -> None:
        """Limit each wait of :meth:`recv` and :meth:`sendall`; None waits for ever."""
        ...

    @property
    def socket(self) -> socket.socket:
        """The socket beneath; for its options and for polling hang-ups, not for data."""
        ...

    @property
    def plain(self) -> bool:
        """Whether the socket carries the bytes as they are, so that it may be handed on."""
        ...


class PlainStream:
    """A connected socket as a :class:`Stream`."""

    plain = True

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.recv = connected.recv
        self.sendall = connected.sendall
        self.settimeout = connected.settimeout
        self.close = connected.close

    def shutdown_write(self) -> None:
        """Send FIN."""
        _shutdown(self.socket, socket.SHUT_WR)

    def shutdown(self) -> None:
        """End both directions."""
        _shutdown(self.socket, socket.SHUT_RDWR)


def _shutdown(connected: socket.socket, how: int) -> None:
    try:
        connected.shutdown(how)
    except OSError:
        pass  # the peer was faster
