"""The server against clients that are broken, hostile or old: raw bytes over a unix socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.errors import InUse, Invalid, NotFound
from lading.http.listeners import listen
from lading.http.messages import App, Headers, Peer, Query, Request, Response, Router
from lading.http.server import Limits, Server

HEADER_SECONDS = 0.3


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    def app(request: Request) -> Response:
        if request.path == "/ignore":
            return Response.text("ignored")
        return Response.text(f"{request.method} {request.body.read().decode()}")

    limits = Limits(header_seconds=HEADER_SECONDS, header_bytes=8192)
    server = Server(app, listen(f"unix://{tmp_path / 's'}"), limits=limits)
    server.start()
    yield str(tmp_path / "s")
    server.stop(0.2)


def talk(address: str, *parts: bytes, end: bool = True) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(address)
        for part in parts:
            client.sendall(part)
        if end:
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    "junk",
    [
        b"hello\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_refused(address: str, junk: bytes) -> None:
    assert talk(address, junk).startswith(b"HTTP/1.1 400 ")


def test_the_server_lives_on_after_junk(address: str) -> None:
    talk(address, b"\0" * 1000)
    assert b"GET " in talk(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def test_endless_headers_are_refused(address: str) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000
    assert talk(address, head).startswith(b"HTTP/1.1 431 ")


def test_headers_that_trickle_are_cut_off(address: str) -> None:
    answer = talk(address, b"GET / HTTP/1.1\r\nHo", end=False)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_silent_connection_may_stay(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(HEADER_SECONDS * 2)
        client.connect(address)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_expect_continue_is_answered_when_the_body_is_wanted(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"ok")
        assert b"PUT ok" in client.recv(1000)


def test_expect_continue_without_want_is_not(address: str) -> None:
    answer = talk(
        address,
        b"PUT /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        end=False,
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_body_nobody_read_does_not_become_a_request(address: str) -> None:
    one = b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n"
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost:x"
    answer = talk(address, one + smuggled + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b"ignored" in answer


def test_pipelined_requests_are_answered_in_order(address: str) -> None:
    requests = b"".join(
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)
    )
    answer = talk(address, requests)
    positions = [answer.index(b"PUT %d" % n) for n in range(5)]
    assert positions == sorted(positions)


def test_http_1_0_is_served_and_closed(address: str) -> None:
    answer = talk(address, b"GET / HTTP/1.0\r\n\r\n", end=False)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"GET ")


def test_head_has_no_body(address: str) -> None:
    answer = talk(address, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 5" in answer.lower()


def test_a_unix_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s"
    (listener,) = listen(f"unix://{path}")
    assert path.stat().st_mode & 0o777 == 0o660
    listener.close()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = f"unix://{tmp_path / 's'}"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    (listener,) = listen(address)
    with pytest.raises(InUse):
        listen(address)
    listener.close()


def test_a_file_in_the_way_of_a_unix_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(InUse):
        listen(f"unix://{tmp_path / 's'}")
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize("bad", ["/run/x.sock", "tcp://host", "ftp://x:1", "unix://relative"])
def test_a_wrong_address_is_named(bad: str) -> None:
    with pytest.raises(Invalid, match=bad):
        listen(bad)


def test_an_unknown_group_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no-such-group"):
        listen(f"unix://{tmp_path / 's'}", group="no-such-group")


def test_sockets_of_the_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        listen("fd://")
    with socket.create_server(("127.0.0.1", 0)) as given:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_FDNAMES", "api")
        monkeypatch.setattr("lading.http.listeners.FIRST_DESCRIPTOR", given.fileno())
        (listener,) = listen("fd://api")
        assert listener.socket.getsockname() == given.getsockname()
        listener.socket.detach()
        with pytest.raises(NotFound):
            listen("fd://other")


@pytest.mark.parametrize(
    ("text", "truth"), [("", False), ("0", False), ("False", False), ("1", True), ("yes", True)]
)
def test_flags_are_read_as_docker_does(text: str, truth: bool) -> None:
    assert Query(f"all={text}").flag("all") is truth
    assert Query("").flag("all", True) is True


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(Invalid, match=r'"t".*"soon"'):
        Query("t=soon").integer("t")


def test_the_router_prefers_the_more_literal_pattern() -> None:
    router = Router()

    def answer(name: str) -> App:
        return lambda request: Response.text(name)

    router.add("GET", "/images/{name:path}/json", answer("inspect"))
    router.add("GET", "/images/json", answer("list"))
    router.add("DELETE", "/images/{name:path}", answer("remove"))
    router.add("GET", "/containers/{id}/json", answer("container"))

    def found(method: str, path: str) -> tuple[str, dict[str, str]] | None:
        match = router.find(method, path)
        if match is None:
            return None
        handler, values = match
        request = Request(method, path, Headers(()), None, Peer(), None)  # type: ignore[arg-type]
        body = handler(request).body
        assert isinstance(body, bytes)
        return body.decode(), dict(values)

    assert found("GET", "/images/json") == ("list", {})
    name = "host:5000/a/b:tag"
    assert found("GET", f"/images/{name}/json") == ("inspect", {"name": name})
    assert found("DELETE", f"/images/{name}") == ("remove", {"name": name})
    assert found("GET", "/containers/x/y/json") is None
    assert router.methods("/images/json") == ["DELETE", "GET"]
