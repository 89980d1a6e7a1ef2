"""What clients see of the server, over unix sockets, TCP and TLS."""

from __future__ import annotations

import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lading.http.messages import Connection, FileResponse, Hijack, Push, Request, Response

from .conftest import Serve

MIB = 1 << 20


def echo(request: Request) -> Response:
    return Response.json(
        {
            "method": request.method,
            "path": request.path,
            "query": {"x": request.query.all("x")},
            "body": request.body.read().decode(),
        }
    )


def test_a_request_arrives_whole(serve: Serve) -> None:
    client = serve(echo).client
    response = client.request("PUT", "/a b/ü", query={"x": ["1", "&="]}, body=b"hello")
    assert response.status == 200
    assert response.json() == {
        "method": "PUT",
        "path": "/a b/ü",
        "query": {"x": ["1", "&="]},
        "body": "hello",
    }


def test_a_connection_serves_many_requests(serve: Serve) -> None:
    served = serve(lambda request: Response.text(str(threading.get_ident())))
    seen = {served.client.request("GET", "/").read() for _ in range(20)}
    assert len(seen) == 1


def test_bodies_stream_in_chunks_both_ways(serve: Serve) -> None:
    def app(request: Request) -> Response:
        return Response.stream(iter(request.body), "application/octet-stream")

    pieces = [bytes([n]) * 70_000 for n in range(50)]
    response = serve(app).client.request("POST", "/", body=iter(pieces))
    assert response.read() == b"".join(pieces)


def test_pieces_arrive_as_they_are_made(serve: Serve) -> None:
    go_on = threading.Event()

    def app(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            go_on.wait(20)
            yield b"second"

        return Response.stream(pieces(), "text/plain")

    response = serve(app).client.request("GET", "/")
    assert response.read1() == b"first"
    go_on.set()
    assert response.read() == b"second"


def test_headers_arrive_before_the_first_piece(serve: Serve) -> None:
    go_on = threading.Event()

    def app(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            go_on.wait(20)
            yield b"late"

        return Response.stream(pieces(), "text/plain")

    response = serve(app).client.request("POST", "/wait")
    assert response.status == 200
    go_on.set()
    assert response.read() == b"late"


def test_a_broken_stream_cannot_be_taken_for_a_whole_one(serve: Serve) -> None:
    def app(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            yield b"some"
            raise ValueError("broken")

        return Response.stream(pieces(), "text/plain")

    response = serve(app).client.request("GET", "/")
    with pytest.raises(Exception, match="ended too early"):
        response.read()


def test_a_file_is_sent_by_its_part(serve: Serve, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    (tmp_path / "file").write_bytes(content)

    def app(request: Request) -> Response:
        return FileResponse(file=(tmp_path / "file").open("rb"), offset=100, size=2 * MIB)

    client = serve(app).client
    for _ in range(2):  # the connection is kept after it
        assert client.request("GET", "/").read() == content[100 : 100 + 2 * MIB]
    assert client.request("HEAD", "/").headers["content-length"] == str(2 * MIB)


def test_an_error_of_the_application_is_answered(serve: Serve) -> None:
    def app(request: Request) -> Response:
        raise RuntimeError("secret")

    response = serve(app).client.request("GET", "/")
    assert response.status == 500
    assert b"secret" not in response.read()


def test_a_client_that_hangs_up_is_noticed(serve: Serve) -> None:
    noticed = threading.Event()
    gone: list[bool] = []

    def app(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            with request.when_gone(noticed.set):
                gone.append(request.gone())
                yield b"here"
                noticed.wait(20)
                gone.append(request.gone())

        return Response.stream(pieces(), "text/plain")

    served = serve(app)
    response = served.client.request("GET", "/")
    assert response.read1() == b"here"
    response.close()
    assert noticed.wait(20)
    served.server.stop(5)
    assert gone == [False, True]


def test_half_close_with_large_output_after_it(serve: Serve) -> None:
    """``echo hi | docker run -i``: the client ends its side first and then reads a lot."""
    size = 32 * MIB

    def run(connection: Connection) -> None:
        heard = b""
        while data := connection.recv():
            heard += data
        assert heard == b"hi"
        for _ in range(size // MIB):
            connection.sendall(b"x" * MIB)
        connection.shutdown_write()

    client = serve(lambda request: Hijack(prepare=lambda: run)).client
    with client.upgrade("POST", "/attach") as raw:
        assert raw.status == 101
        raw.sendall(b"hi")
        raw.shutdown_write()
        got = 0
        while data := raw.recv():
            got += len(data)
        assert got == size


def test_the_server_ends_its_side_first(serve: Serve) -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def run(connection: Connection) -> None:
        connection.sendall(b"bye")
        connection.shutdown_write()
        while data := connection.recv():
            heard.append(data)
        done.set()

    client = serve(lambda request: Hijack(prepare=lambda: run)).client
    with client.upgrade("POST", "/attach") as raw:
        assert raw.recv() == b"bye"
        assert raw.recv() == b""
        raw.sendall(b"still here")
        raw.shutdown_write()
        assert done.wait(20)
    assert b"".join(heard) == b"still here"


def test_both_sides_at_once(serve: Serve) -> None:
    """A thread that waits for input must not hold up one that sends, and the other way round."""
    size = 16 * MIB

    def run(connection: Connection) -> None:
        sending = threading.Thread(target=lambda: connection.sendall(b"d" * size))
        sending.start()
        got = 0
        while data := connection.recv():
            got += len(data)
        sending.join()
        connection.sendall(str(got).encode())

    client = serve(lambda request: Hijack(prepare=lambda: run)).client
    with client.upgrade("POST", "/attach") as raw:

        def send() -> None:
            raw.sendall(b"u" * size)
            raw.shutdown_write()

        upwards = threading.Thread(target=send)
        upwards.start()
        heard = b"".join(iter(raw.recv, b""))
        upwards.join()
    assert heard == b"d" * size + str(size).encode()


def test_hijack_without_upgrade_answers_200(serve: Serve) -> None:
    def app(request: Request) -> Response:
        return Hijack(
            headers={"Content-Type": "application/vnd.docker.raw-stream"},
            prepare=lambda: lambda connection: connection.sendall(b"raw"),
        )

    response = serve(app).client.request("POST", "/attach")
    assert response.status == 200
    assert response.headers["content-type"] == "application/vnd.docker.raw-stream"
    assert response.read() == b"raw"


def test_an_error_before_the_upgrade_is_an_ordinary_answer(serve: Serve) -> None:
    def prepare() -> Callable[[Connection], None]:
        raise ValueError("no")

    def app(request: Request) -> Response:
        return Hijack(prepare=prepare, failed=lambda error: Response.text(str(error), 409))

    with serve(app).client.upgrade("POST", "/attach") as raw:
        assert not raw.accepted
        assert (raw.status, raw.response.read()) == (409, b"no")


@pytest.mark.parametrize("transport", ["unix"], indirect=True)
def test_a_plain_connection_can_be_handed_over(serve: Serve) -> None:
    def hand_over(descriptor: int, head: bytes) -> None:
        kept = os.dup(descriptor)

        def carry_on() -> None:
            os.write(kept, head + b"from elsewhere")
            os.close(kept)

        threading.Thread(target=carry_on).start()

    def app(request: Request) -> Response:
        return Hijack(prepare=lambda: lambda connection: None, hand_over=hand_over)

    with serve(app).client.upgrade("POST", "/attach") as raw:
        assert raw.status == 101
        assert b"".join(iter(raw.recv, b"")) == b"from elsewhere"


def test_a_slow_reader_costs_no_memory(serve: Serve) -> None:
    """The server makes no more than the connection takes; 256 MiB pass through a small process."""
    total, made = 256 * MIB, 0

    def app(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:
            nonlocal made
            piece = b"x" * MIB
            for _ in range(total // MIB):
                made += MIB
                yield piece

        return Response.stream(pieces(), "application/octet-stream")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    response = serve(app).client.request("GET", "/")
    response.read(MIB)
    assert made < 64 * MIB, "the kernel's buffers hold a few MiB; more was made than could be sent"
    read = MIB
    while data := response.read1():
        read += len(data)
    assert read == total
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_slow_handler_holds_up_the_sender(serve: Serve) -> None:
    """An upload waits in the client for as long as the handler reads nothing."""
    sent = 0
    sent_meanwhile: list[int] = []

    def app(request: Request) -> Response:
        request.body.read(MIB)
        threading.Event().wait(0.3)  # the sender has every chance to go on
        sent_meanwhile.append(sent)
        return Response.text(str(MIB + sum(len(piece) for piece in request.body)))

    def upload() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(128):
            sent += MIB
            yield b"x" * MIB

    response = serve(app).client.request("POST", "/", body=upload())
    assert response.read() == str(128 * MIB).encode()
    assert sent_meanwhile[0] < 64 * MIB, "more than the kernel's buffers hold"


def test_a_refused_upload_gets_its_answer(serve: Serve) -> None:
    """The client still sends when the answer comes."""
    client = serve(lambda request: Response.text("too much", 413)).client
    response = client.request("POST", "/", body=(b"x" * MIB for _ in range(8)))
    assert (response.status, response.read()) == (413, b"too much")


def test_stop_lets_running_requests_end(serve: Serve) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def app(request: Request) -> Response:
        inside.set()
        go_on.wait(20)
        return Response.text("done")

    served = serve(app)
    answers: list[bytes] = []
    asking = threading.Thread(
        target=lambda: answers.append(served.client.request("GET", "/").read())
    )
    asking.start()
    assert inside.wait(20)
    stopping = threading.Thread(target=served.server.stop, args=(20,))
    stopping.start()
    go_on.set()
    asking.join()
    stopping.join()
    assert answers == [b"done"]


def test_json_has_a_line_end(serve: Serve) -> None:
    body = serve(lambda request: Response.json({"a": [1, None]})).client.request("GET", "/").read()
    assert body.endswith(b"\n")
    assert json.loads(body) == {"a": [1, None]}


def test_pushed_pieces_arrive(serve: Serve) -> None:
    def write(send: Callable[[bytes], None]) -> None:
        send(b"one ")
        send(b"two")

    client = serve(lambda request: Push(write=write)).client
    assert [client.request("GET", "/").read() for _ in range(2)] == [b"one two"] * 2


def test_a_push_that_fails_at_once_has_the_status_of_its_error(serve: Serve) -> None:
    def write(send: Callable[[bytes], None]) -> None:
        raise ValueError("no such image")

    def app(request: Request) -> Response:
        return Push(write=write, failed=lambda error: Response.text(str(error), 404))

    response = serve(app).client.request("GET", "/")
    assert (response.status, response.read()) == (404, b"no such image")


def test_a_push_that_fails_later_is_cut(serve: Serve) -> None:
    def write(send: Callable[[bytes], None]) -> None:
        send(b"some")
        raise ValueError("broken")

    response = serve(lambda request: Push(write=write)).client.request("GET", "/")
    with pytest.raises(Exception, match="ended too early"):
        response.read()
