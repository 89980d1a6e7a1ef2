"""Carrying between a client's raw connection and a socket of the engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from lading.http.messages import App, Connection, Hijack, Request, Response
from lading.http.pump import pump

from .conftest import Serve

MIB = 1 << 20


def pumped(
    engine_side: Callable[[socket.socket], None], *, stdin: bool = True
) -> tuple[App, list[threading.Thread]]:
    """An application that pumps to a socket whose other end ``engine_side`` has in a thread."""
    threads: list[threading.Thread] = []

    def app(request: Request) -> Response:
        ours, theirs = socket.socketpair()

        def work() -> None:
            with theirs:
                engine_side(theirs)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

        def run(client: Connection) -> None:
            with ours:
                pump(client, ours, stdin=stdin)

        return Hijack(prepare=lambda: run)

    return app, threads


def test_output_goes_on_after_the_input_has_ended(serve: Serve) -> None:
    def count(engine: socket.socket) -> None:
        got = sum(map(len, iter(lambda: engine.recv(65536), b"")))
        for _ in range(16):
            engine.sendall(b"x" * MIB)
        engine.sendall(str(got).encode())

    app, threads = pumped(count)
    with serve(app).client.upgrade("POST", "/") as raw:
        for _ in range(4):
            raw.sendall(b"i" * MIB)
        raw.shutdown_write()
        heard = b"".join(iter(raw.recv, b""))
    threads[0].join(20)
    assert heard == b"x" * (16 * MIB) + str(4 * MIB).encode()


def test_output_is_whole_although_nobody_reads_the_input(serve: Serve) -> None:
    """``yes | docker run -i IMAGE head``: closing with unread input must not lose output."""

    def ignore(engine: socket.socket) -> None:
        engine.sendall(b"o" * (4 * MIB))
        engine.shutdown(socket.SHUT_RDWR)

    app, threads = pumped(ignore)
    with serve(app).client.upgrade("POST", "/") as raw:
        raw.sendall(b"unwanted" * 1000)
        heard = b"".join(iter(raw.recv, b""))
    threads[0].join(20)
    assert len(heard) == 4 * MIB


def test_without_stdin_the_clients_bytes_are_dropped(serve: Serve) -> None:
    heard: list[bytes] = []

    def listen(engine: socket.socket) -> None:
        engine.sendall(b"out")
        engine.settimeout(0.3)
        with pytest.raises(TimeoutError):
            heard.append(engine.recv(100))

    app, threads = pumped(listen, stdin=False)
    with serve(app).client.upgrade("POST", "/") as raw:
        raw.sendall(b"in")
        raw.shutdown_write()
        assert b"".join(iter(raw.recv, b"")) == b"out"
    threads[0].join(20)
    assert heard == []


@pytest.mark.parametrize("transport", ["unix"], indirect=True)
def test_a_client_that_closes_lets_go_of_a_silent_engine(serve: Serve) -> None:
    let_go = threading.Event()

    def silent(engine: socket.socket) -> None:
        while engine.recv(100):
            pass
        # The client's half-close alone is no reason: only the end of the other direction is.
        try:
            while True:
                engine.sendall(b"x" * MIB)
        except OSError:
            let_go.set()

    app, threads = pumped(silent)
    raw = serve(app).client.upgrade("POST", "/")
    raw.close()
    assert let_go.wait(20)
    threads[0].join(20)
