"""What the relay of published ports does with connections that are slow to be made."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lading.monitor.loop import Loop
from lading.monitor.relay import Relay
from lading.networks.ports import Held
from lading.testing.waiting import until


@contextmanager
def relayed(target: int, log: Path) -> Iterator[int]:
    """A port of ::1 from which a process carries to a port of 127.0.0.1."""
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    port = listener.getsockname()[1]
    with Held("127.0.0.1") as held:
        held.keep([listener], target)
        held.seal()
    found = held.descriptors()
    if (monitor := os.fork()) == 0:
        try:
            loop = Loop()
            Relay(loop, found["relay"], found["relayed"], lambda pid, ended: None, log)
            while True:
                loop.step()
        finally:
            os._exit(1)
    try:
        yield port
    finally:
        os.kill(monitor, signal.SIGKILL)
        os.waitpid(monitor, 0)
        held.close()


def test_a_client_that_ends_before_the_connection_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        server.settimeout(60)
        port = server.getsockname()[1]
        # As long as this one waits, the kernel answers to no other.
        first = socket.create_connection(("127.0.0.1", port))
        with (
            first,
            relayed(port, tmp_path / "log") as outside,
            socket.create_connection(("::1", outside)) as client,
        ):
            client.settimeout(60)
            client.shutdown(socket.SHUT_WR)
            time.sleep(0.3)  # the relay has seen it meanwhile
            server.accept()[0].close()
            peer, _ = server.accept()
            with peer:
                peer.settimeout(60)
                assert peer.recv(100) == b""
                peer.sendall(b"answer")
            assert client.recv(100) == b"answer"


def test_a_relay_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("no reason at all")

    monkeypatch.setattr("lading.monitor.relay._Carrier.run", fail)
    log = tmp_path / "log"
    with relayed(1, log) as outside, socket.create_connection(("::1", outside)):
        until(lambda: log.exists() and "RuntimeError: no reason at all" in log.read_text())
