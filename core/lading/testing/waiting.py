"""Waiting for what comes to be on its own, in a test: the condition decides, never a fixed time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

#: Only a failure waits so long. Emulated processors need more.
PATIENCE_SECONDS = float(os.environ.get("LADING_PATIENCE_SECONDS", "60"))


def holds(condition: Callable[[], object], pause: float = 0.02) -> bool:
    """Wait until the condition holds; False if it does not within PATIENCE_SECONDS."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(pause)
    return True


def until(
    condition: Callable[[], object],
    what: str | Callable[[], str] = "it did not come true",
    pause: float = 0.02,
) -> None:
    """Wait until the condition holds; AssertionError with ``what`` if it does not in time."""
    if not holds(condition, pause):
        raise AssertionError(what if isinstance(what, str) else what())


def listens(port: int) -> bool:
    """Whether somebody takes connections at this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
