"""Unix sockets, without gRPC."""

from __future__ import annotations

import socket


def refusal(address: str) -> str:
    """Why nobody accepts connections on a Unix socket; empty when somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(address)
        except OSError as error:
            return error.strerror or str(error)
    return ""
