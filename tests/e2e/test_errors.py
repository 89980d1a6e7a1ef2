"""Bad input: Docker's status or exit code, one clear sentence, nothing left behind."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


class Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lading")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, str]:
    connection = Unix(str(daemon.socket))
    data = (
        body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    )
    connection.request(method, path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    try:
        return answer.status, str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.status, text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/v1.41/containers/create", b"{bad json", 400, "JSON"),
        ("POST", "/v1.41/containers/create", {"Image": 5}, 400, "Image"),
        (
            "POST",
            "/v1.41/containers/create",
            {"Image": "nosuchimage"},
            404,
            "No such image: nosuchimage:latest",
        ),
        (
            "POST",
            "/v1.41/containers/create?name=-bad-",
            {"Image": "busybox"},
            400,
            "Invalid container name",
        ),
        (
            "POST",
            "/v1.41/containers/create",
            {"Image": "busybox", "Cmd": ["a"], "HostConfig": {"Memory": 5}},
            400,
            "memory",
        ),
        (
            "POST",
            "/v1.41/containers/create",
            {"Image": "busybox", "Cmd": ["a"], "HostConfig": {"Runtime": "zz"}},
            400,
            "zz",
        ),
        (
            "POST",
            "/v1.41/containers/create",
            {"Image": "busybox", "Cmd": ["a"], "HostConfig": {"Binds": ["rel:"]}},
            400,
            "rel",
        ),
        ("GET", "/v1.41/containers/nosuch/json", None, 404, "No such container: nosuch"),
        ("POST", "/v1.41/containers/nosuch/start", None, 404, "No such container: nosuch"),
        ("DELETE", "/v1.41/containers/nosuch", None, 404, "No such container: nosuch"),
        ("GET", "/v1.41/images/nosuch/json", None, 404, "No such image: nosuch"),
        ("GET", "/v1.41/networks/nosuch", None, 404, "network nosuch not found"),
        ("GET", "/v1.41/volumes/nosuch", None, 404, "nosuch"),
        ("GET", "/v1.41/exec/nosuch/json", None, 404, "No such exec instance: nosuch"),
        ("GET", "/v9.99/info", None, 400, "too new"),
        ("GET", "/v1.41/nosuchpage", None, 404, "page not found"),
        ("GET", "/v1.41/containers/json?filters={bad", None, 400, "filter"),
    ],
)
def test_status_and_text(
    daemon: Daemon, method: str, path: str, body: object, status: int, text: str
) -> None:
    got, message = ask(daemon, method, path, body)
    assert (got, text.lower() in message.lower()) == (status, True), message


def test_taken_name(daemon: Daemon, client: str) -> None:
    name = f"taken{time.monotonic_ns()}"
    daemon.client(client, "create", "--name", name, "busybox", "true")
    done = daemon.client(client, "create", "--name", name, "busybox", "true", check=False)
    assert done.returncode == 1
    assert f'"/{name}" is already in use by container' in done.stderr.decode()
    daemon.client(client, "rm", name)


def test_starting_and_stopping_twice_is_not_an_error(daemon: Daemon) -> None:
    name = f"twice{time.monotonic_ns()}"
    daemon.client("lading", "run", "-d", "--name", name, "busybox", "sleep", "100")
    assert ask(daemon, "POST", f"/v1.41/containers/{name}/start")[0] == 304
    daemon.client("lading", "kill", name)
    assert ask(daemon, "POST", f"/v1.41/containers/{name}/stop")[0] == 304
    assert ask(daemon, "POST", f"/v1.41/containers/{name}/kill")[0] == 409
    assert ask(daemon, "POST", f"/v1.41/containers/{name}/pause")[0] == 409
    daemon.client("lading", "rm", name)


def test_unknown_flag(daemon: Daemon, client: str) -> None:
    done = daemon.client(client, "run", "--nosuchflag", "busybox", check=False)
    assert done.returncode == 125
    assert "nosuchflag" in done.stderr.decode()


def test_failed_start_leaves_nothing_running(daemon: Daemon, client: str) -> None:
    name = f"bad{time.monotonic_ns()}"
    done = daemon.client(client, "run", "-d", "--name", name, "busybox", "/no/such", check=False)
    assert done.returncode == 127
    answer = json.loads(daemon.client(client, "inspect", name).stdout)[0]
    assert (answer["State"]["Status"], answer["State"]["ExitCode"]) == ("created", 127)
    assert answer["NetworkSettings"]["IPAddress"] == ""
    daemon.client(client, "rm", name)


def test_garbage_on_the_socket_harms_nobody(daemon: Daemon) -> None:
    for junk in (
        b"\x00\xff" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(daemon.socket))
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(60)
            assert raw.recv(4096).startswith(b"HTTP/1.1 4")
    assert daemon.answers()


def test_a_registry_that_is_not_there_is_named_once(daemon: Daemon) -> None:
    done = daemon.client("lading", "pull", "127.0.0.1:9/x", check=False)
    assert done.returncode == 1
    assert done.stderr.decode().count("127.0.0.1:9") == 1


def test_info_does_not_warn_of_backends_that_nobody_chose(daemon: Daemon) -> None:
    status, text = ask(daemon, "GET", "/info")
    assert status == 200
    warnings = json.loads(text)["Warnings"]
    assert [w for w in warnings if "is not usable" in w] == []


def test_load_of_what_is_no_archive(daemon: Daemon, client: str) -> None:
    """As with dockerd, the error is in the stream: no client says that the daemon answered so."""
    done = daemon.client(client, "load", input=b"garbage" * 1000, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    said = done.stderr.decode()
    assert "Error response from daemon" not in said
    assert said.strip()
