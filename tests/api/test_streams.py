"""Streams of a running daemon: WebSocket, detach keys, and clients that go away."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from lading.http.client import Client
from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root

NAME = "streams-test"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.host, timeout=60) as client:
        yield client
        client.request("DELETE", f"/containers/{NAME}", query={"force": True}).read()


def start(client: Client, *command: str, tty: bool = False) -> None:
    body = {"Image": "busybox", "Cmd": command, "OpenStdin": True, "Tty": tty}
    for path, data in (
        (f"/containers/create?name={NAME}", json.dumps(body).encode()),
        (f"/containers/{NAME}/start", b""),
    ):
        target, _, query = path.partition("?")
        pairs = dict([query.split("=")]) if query else {}
        with client.request("POST", target, query=pairs, body=data) as answer:
            assert answer.status < 300, answer.read()


class WebSocket:
    """A client of RFC 6455, as small as can be."""

    def __init__(self, daemon: Daemon, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(daemon.socket))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        assert self._file.readline().startswith(b"HTTP/1.1 101 ")
        while self._file.readline() != b"\r\n":
            pass

    def send(self, kind: int, data: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(c ^ mask[i % 4] for i, c in enumerate(data))
        self._socket.sendall(struct.pack("!BB", 0x80 | kind, 0x80 | len(data)) + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        first, size = self._file.read(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._file.read(2))
        return first & 15, self._file.read(size)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_a_websocket_carries_both_ways(daemon: Daemon, client: Client) -> None:
    start(client, "cat")
    ws = WebSocket(daemon, f"/v1.41/containers/{NAME}/attach/ws?stdin=1&stdout=1&stream=1")
    ws.send(BINARY, b"hello\n")
    assert ws.receive() == (BINARY, b"hello\n")
    ws.send(PING, b"there?")
    assert ws.receive() == (PONG, b"there?")
    ws.close()


def test_a_websocket_is_closed_when_the_container_ends(daemon: Daemon, client: Client) -> None:
    start(client, "sh", "-c", "read line; echo got $line")
    ws = WebSocket(daemon, f"/v1.41/containers/{NAME}/attach/ws?stdin=1&stdout=1&stream=1")
    ws.send(TEXT, b"it\n")
    assert ws.receive() == (BINARY, b"got it\n")
    assert ws.receive()[0] == CLOSE
    ws.close()


def test_detach_keys_leave_the_container_running(client: Client) -> None:
    start(client, "cat", tty=True)
    query = {"stdin": 1, "stdout": 1, "stream": 1, "detachKeys": "ctrl-x,y"}
    with client.upgrade("POST", f"/containers/{NAME}/attach", query=query) as raw:
        raw.sendall(b"a\n")
        assert raw.recv()
        raw.sendall(b"\x18y")
        while raw.recv():
            pass
    with client.request("GET", f"/containers/{NAME}/json") as answer:
        assert answer.json()["State"]["Running"]


def test_wrong_detach_keys_are_refused(client: Client) -> None:
    start(client, "cat", tty=True)
    query = {"stdin": 1, "stream": 1, "detachKeys": "ctrl-1"}
    with client.upgrade("POST", f"/containers/{NAME}/attach", query=query) as raw:
        assert raw.status == 400


def threads_of(daemon: Daemon) -> int:
    assert daemon.process
    return len(os.listdir(f"/proc/{daemon.process.pid}/task"))


def test_clients_that_go_away_leave_no_thread(daemon: Daemon, client: Client) -> None:
    """Followers of a silent container and listeners for events end with their clients."""
    start(client, "sleep", "1000")
    before = threads_of(daemon)
    followers = []
    for path, query in (
        (f"/containers/{NAME}/logs", {"follow": 1, "stdout": 1}),
        (f"/containers/{NAME}/stats", {}),
        ("/events", {"filters": '{"type":["plugin"]}'}),
    ):
        for _ in range(5):
            follower = Client(daemon.host)
            followers.append(follower.request("GET", path, query=query))
    for _ in range(5):
        follower = Client(daemon.host)
        followers.append(follower.request("POST", f"/containers/{NAME}/wait"))
    assert threads_of(daemon) >= before + len(followers)
    for response in followers:
        response.close()
    give_up = time.monotonic() + 30
    while threads_of(daemon) > before + 2:
        assert time.monotonic() < give_up, "threads stay behind"
        time.sleep(0.05)


def test_a_hundred_waiters_learn_the_exit(client: Client, daemon: Daemon) -> None:
    start(client, "sh", "-c", "read x; exit 7")
    waiters = [
        Client(daemon.host, timeout=60).request("POST", f"/containers/{NAME}/wait")
        for _ in range(100)
    ]
    query = {"stdin": 1, "stream": 1}
    with client.upgrade("POST", f"/containers/{NAME}/attach", query=query) as raw:
        raw.sendall(b"go\n")
        assert [w.json()["StatusCode"] for w in waiters] == [7] * 100


def test_an_exec_s_terminal_has_its_size_from_the_first_moment(client: Client) -> None:
    start(client, "sleep", "60")
    body = {"Cmd": ["stty", "size"], "Tty": True, "AttachStdout": True}
    path = f"/containers/{NAME}/exec"
    with client.request("POST", path, body=json.dumps(body).encode()) as answer:
        exec_id = json.loads(answer.read())["Id"]
    body = {"Tty": True, "ConsoleSize": [5, 6]}
    path = f"/exec/{exec_id}/start"
    with client.request("POST", path, body=json.dumps(body).encode()) as answer:
        assert answer.read() == b"5 6\r\n"
