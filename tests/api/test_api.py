"""What clients see of the API, over an engine that is made of fakes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from lading.api import Api, make_app
from lading.api.parameters import nanoseconds
from lading.api.render_container import status_text
from lading.api.times import human
from lading.archive import Change, PathStat
from lading.containers import Container, Created, State, Status, Wait
from lading.errors import Conflict, Invalid, LadingError, NotFound, NotModified, StartFailed
from lading.http.messages import Headers, Hijack, Peer, Push, Request, Response
from lading.model.docker import ContainerConfig, HostConfig
from lading.networks import ContainerNetworks

CONTAINER = Container(
    id="c" * 64,
    name="web",
    created="2026-01-02T03:04:05.678901234Z",
    image="sha256:" + "1" * 64,
    config=ContainerConfig(image="busybox", cmd=["sh"]),
    host_config=HostConfig(),
    path="sh",
    args=("-c", "echo hi there"),
    filesystem="overlay",
    isolation="native",
)


class Body:
    """A request's body that is here already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        taken = self._data if size < 0 else self._data[:size]
        self._data = self._data[len(taken) :]
        return taken

    def read1(self, size: int = -1) -> bytes:
        return self.read(size)

    def __iter__(self) -> Iterator[bytes]:
        yield self.read()


def whole(answer: Response) -> bytes:
    """Its body, to the end where it comes in pieces."""
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


class Here:
    """A client that stays."""

    def gone(self) -> bool:
        return False

    def when_gone(self, callback: Callable[[], None]) -> Any:
        import contextlib

        return contextlib.nullcontext()


class Containers:
    """Answers each method from ``answers``, or raises what is there; notes the calls."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"get": CONTAINER, "exec_ids": (), "list": ()}
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return method


class Site:
    """The API over fakes."""

    def __init__(self) -> None:
        self.containers = Containers()
        self.images = Containers()
        self.engine = SimpleNamespace(
            containers=self.containers,
            images=self.images,
            networks=SimpleNamespace(of=lambda container: ContainerNetworks()),
            volumes=Containers(),
            events=Containers(),
            transfers=Containers(),
            settings=SimpleNamespace(storage_driver="overlay"),
            info=dict,
            graph=lambda container: {},
        )
        self.api: Api = make_app(self.engine)

    def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        request = Request(
            method, target, Headers((headers or {}).items()), Body(data), Peer(), Here()
        )
        return self.api(request)

    def json(self, method: str, target: str, body: object = None) -> Any:
        answer = self.ask(method, target, body)
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("No such container: x"), 404),
        (Conflict("in the way"), 409),
        (Invalid("wrong"), 400),
        (StartFailed("exec: not found", errno=2), 400),
        (LadingError("broken"), 500),
        (OSError(5, "Input/output error"), 500),
        (ZeroDivisionError("division by zero"), 500),
    ],
)
def test_errors_have_dockers_status_and_body(site: Site, error: Exception, status: int) -> None:
    site.containers.answers["start"] = error
    answer = site.ask("POST", "/v1.41/containers/x/start")
    assert answer.status == status
    assert isinstance(answer.body, bytes)
    words = getattr(error, "strerror", None) or str(error)
    assert words in json.loads(answer.body)["message"]


def test_what_is_so_already_is_304_without_a_body(site: Site) -> None:
    site.containers.answers["stop"] = NotModified("stopped already")
    answer = site.ask("POST", "/v1.41/containers/x/stop")
    assert (answer.status, answer.body) == (304, b"")


def test_clients_of_2014_read_errors_as_text(site: Site) -> None:
    site.containers.answers["start"] = NotFound("No such container: x")
    answer = site.ask("POST", "/v1.12/containers/x/start")
    assert (answer.status, answer.body) == (404, b"No such container: x\n")


@pytest.mark.parametrize(
    ("version", "words"),
    [("1.99", "client version 1.99 is too new"), ("1.2", "client version 1.2 is too old")],
)
def test_versions_beyond_the_range_are_named(site: Site, version: str, words: str) -> None:
    answer = site.ask("GET", f"/v{version}/_ping")
    assert answer.status == 400
    assert isinstance(answer.body, bytes)
    assert words in answer.body.decode()


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.51"])
def test_ping_answers_with_and_without_a_version(site: Site, prefix: str) -> None:
    answer = site.ask("GET", f"{prefix}/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["Builder-Version"] == "1"


def test_an_unknown_path_is_404(site: Site) -> None:
    assert site.json("GET", "/v1.41/nowhere") == {"message": "page not found"}


def test_create_takes_nulls_words_and_any_case(site: Site) -> None:
    site.containers.answers["create"] = Created("c" * 64, ["careful"])
    body = {
        "Image": "busybox",
        "Cmd": "ls",
        "Entrypoint": None,
        "Env": None,
        "ExposedPorts": {"80/tcp": None},
        "HostConfig": {
            "Binds": None,
            "PortBindings": {"80/tcp": [{"HostPort": "8080", "HostIP": None}], "81/tcp": None},
            "memory": 4096,
        },
        "NetworkingConfig": {"EndpointsConfig": {"net": None}},
        "FromTheFuture": {"x": 1},
    }
    answer = site.ask("POST", "/v1.41/containers/create?name=web&platform=linux/amd64", body)
    assert answer.status == 201
    assert json.loads(whole(answer)) == {"Id": "c" * 64, "Warnings": ["careful"]}
    (name, config, host, networking, platform), _ = site.containers.calls[-1][1:]
    assert (name, platform) == ("web", "linux/amd64")
    assert (config.cmd, config.entrypoint, list(config.exposed_ports)) == (["ls"], None, ["80/tcp"])
    assert host.port_bindings["80/tcp"][0].host_port == "8080"
    assert (host.port_bindings["81/tcp"], host.memory, host.binds) == ([], 4096, [])
    assert list(networking.endpoints_config) == ["net"]


def test_create_reads_limits_where_clients_of_2014_put_them(site: Site) -> None:
    site.containers.answers["create"] = Created("c" * 64)
    body = {"Image": "busybox", "Memory": 1 << 20, "Cpuset": "0", "VolumesFrom": "a,b:ro"}
    site.ask("POST", "/v1.12/containers/create", body)
    host = site.containers.calls[-1][1][2]
    assert (host.memory, host.cpuset_cpus) == (1 << 20, "0")
    assert host.volumes_from == ["a", "b:ro"]
    # What dockerode sends there, in all versions.
    site.ask("POST", "/containers/create", {"Image": "busybox", "VolumesFrom": []})
    assert site.containers.calls[-1][1][2].volumes_from == []


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{", "invalid JSON"),
        (b'{"Image": 1}', "$.Image"),
        (b'{"HostConfig": {"Binds": [1]}}', "$.HostConfig.Binds[0]"),
        (b"[]", "object"),
    ],
)
def test_a_wrong_body_is_400_and_names_the_member(site: Site, body: bytes, path: str) -> None:
    answer = site.ask("POST", "/v1.41/containers/create", body)
    assert answer.status == 400
    assert isinstance(answer.body, bytes)
    assert path in json.loads(answer.body)["message"]


def test_defaults_follow_the_clients_version(site: Site) -> None:
    site.containers.answers["create"] = Created("c" * 64)
    modes = []
    for version in ("1.39", "1.40", "1.51"):
        site.ask("POST", f"/v{version}/containers/create", {"Image": "x"})
        host = site.containers.calls[-1][1][2]
        modes.append((host.ipc_mode, host.cgroupns_mode))
    assert modes == [("shareable", "host"), ("", "host"), ("", "")]


def test_old_clients_send_the_host_config_with_start(site: Site) -> None:
    site.ask("POST", "/v1.12/containers/x/start", {"Binds": ["/a:/b"]})
    (name, args, _), (start, *_) = site.containers.calls[-2:]
    assert (name, args[1].binds, start) == ("set_host_config", ["/a:/b"], "start")
    assert site.ask("POST", "/v1.41/containers/x/start", {"Binds": ["/a:/b"]}).status == 400
    assert site.ask("POST", "/v1.41/containers/x/start", {}).status == 204


@pytest.mark.parametrize(
    "filters",
    ['{"label":["a=b"],"status":["running"]}', '{"label":{"a=b":true},"status":{"running":true}}'],
)
def test_both_forms_of_filters(site: Site, filters: str) -> None:
    site.ask("GET", f"/v1.41/containers/json?all=1&filters={filters}")
    options = site.containers.calls[-1][1][0]
    assert options.all
    assert options.filters == {"label": ["a=b"], "status": ["running"]}


def test_filters_that_are_no_json_are_400(site: Site) -> None:
    assert site.ask("GET", "/v1.41/containers/json?filters=x").status == 400


def test_since_and_before_of_old_clients_are_filters(site: Site) -> None:
    site.ask("GET", "/v1.12/containers/json?since=a&before=b")
    assert site.containers.calls[-1][1][0].filters == {"since": ["a"], "before": ["b"]}


def test_wait_answers_before_it_waits(site: Site) -> None:
    wait = Wait()
    site.containers.answers["wait"] = wait
    answer = site.ask("POST", "/v1.41/containers/x/wait?condition=next-exit")
    assert answer.status == 200, "nobody has resolved the promise, the answer is here"
    assert site.containers.calls[-1][1] == ("x", "next-exit")
    wait.resolve(3)
    assert json.loads(whole(answer)) == {"StatusCode": 3}


def test_attach_tells_frames_from_raw_since_1_42(site: Site) -> None:
    kinds = []
    for tty in (False, True):
        site.containers.answers["attach"] = SimpleNamespace(
            tty=tty, connect=None, hand_over=lambda descriptor, head: None
        )
        for version in ("1.41", "1.42"):
            answer = site.ask("POST", f"/v{version}/containers/x/attach?stdin=1&stream=1")
            assert isinstance(answer, Hijack)
            kinds.append(answer.headers["Content-Type"].rpartition(".")[2])
    assert kinds == ["raw-stream", "multiplexed-stream", "raw-stream", "raw-stream"]


def test_logs_need_a_stream(site: Site) -> None:
    answer = site.ask("GET", "/v1.41/containers/x/logs")
    assert answer.status == 400


def test_the_websocket_handshake_is_checked(site: Site) -> None:
    assert site.ask("GET", "/v1.41/containers/x/attach/ws").status == 400
    site.containers.answers["attach"] = SimpleNamespace(tty=False, connect=None)
    answer = site.ask(
        "GET",
        "/v1.41/containers/x/attach/ws",
        headers={
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )
    assert answer.status == 101
    # The example of RFC 6455, section 1.3.
    assert answer.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_path_stat_goes_into_a_header(site: Site) -> None:
    site.containers.answers["archive_stat"] = PathStat("passwd", 3, 0o644, "2026-01-01T00:00:00Z")
    answer = site.ask("HEAD", "/v1.41/containers/x/archive?path=/etc/passwd")
    header = answer.headers["X-Docker-Container-Path-Stat"]
    assert json.loads(base64.b64decode(header)) == {
        "name": "passwd",
        "size": 3,
        "mode": 0o644,
        "mtime": "2026-01-01T00:00:00Z",
        "linkTarget": "",
    }
    assert site.ask("HEAD", "/v1.41/containers/x/archive").status == 400


def test_changes_are_listed(site: Site) -> None:
    site.containers.answers["changes"] = [Change("/etc/x", 1), Change("/gone", 2)]
    assert site.json("GET", "/v1.41/containers/x/changes") == [
        {"Path": "/etc/x", "Kind": 1},
        {"Path": "/gone", "Kind": 2},
    ]


def test_a_pull_that_fails_before_it_begins_has_its_status(site: Site) -> None:
    site.engine.transfers.answers["pull"] = NotFound("manifest unknown")
    answer = site.ask("POST", "/v1.41/images/create?fromImage=busybox&tag=nope")
    assert isinstance(answer, Push)
    assert answer.write
    assert answer.failed
    with pytest.raises(NotFound) as caught:
        answer.write(lambda piece: None)
    assert answer.failed(caught.value).status == 404


def test_a_pull_that_fails_later_says_so_in_the_stream(site: Site) -> None:
    def pull(name: str, emit: Callable[[Mapping[str, Any]], None], **rest: Any) -> None:
        emit({"status": f"Pulling {name}"})
        raise LadingError("connection reset")

    site.engine.transfers.pull = pull
    answer = site.ask("POST", "/v1.41/images/create?fromImage=busybox&tag=1")
    sent: list[bytes] = []
    assert isinstance(answer, Push)
    assert answer.write
    answer.write(sent.append)
    assert [json.loads(line) for line in sent] == [
        {"status": "Pulling busybox:1"},
        {"errorDetail": {"message": "connection reset"}, "error": "connection reset"},
    ]


@pytest.mark.parametrize(
    ("tag", "name"),
    [("", "busybox"), ("1", "busybox:1"), ("sha256:ab", "busybox@sha256:ab")],
)
def test_pull_joins_name_and_tag(site: Site, tag: str, name: str) -> None:
    answer = site.ask("POST", f"/v1.41/images/create?fromImage=busybox&tag={tag}")
    assert isinstance(answer, Push)
    assert answer.write
    answer.write(lambda piece: None)
    assert site.engine.transfers.calls[-1][1][0] == name


def test_credentials_are_read_and_nonsense_counts_as_none(site: Site) -> None:
    good = base64.urlsafe_b64encode(b'{"username":"u","password":"p??"}').decode()
    seen = []
    for header in (good, good.rstrip("="), "", "e30=", "!!!"):
        answer = site.ask("POST", "/v1.41/images/x/push", headers={"X-Registry-Auth": header})
        assert isinstance(answer, Push)
        assert answer.write
        answer.write(lambda piece: None)
        seen.append(site.engine.transfers.calls[-1][2]["auth"])
    assert [auth and (auth.username, auth.password) for auth in seen] == [
        ("u", "p??"),
        ("u", "p??"),
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/services"), ("GET", "/swarm"), ("GET", "/nodes/x"), ("POST", "/secrets/create")],
)
def test_swarm_is_answered_as_by_a_node_outside_one(site: Site, method: str, path: str) -> None:
    answer = site.ask(method, f"/v1.41{path}")
    assert answer.status == 503
    assert isinstance(answer.body, bytes)
    assert "This node is not a swarm manager" in answer.body.decode()


@pytest.mark.parametrize("version", ["1.41", "1.51"])
def test_every_documented_route_is_answered(
    site: Site, definitions: Callable[[str], Any], version: str
) -> None:
    missing = []
    for method, path in definitions(version).routes():
        target = path.replace("{id}", "x").replace("{name}", "x")
        answer = site.ask(method, f"/v{version}{target}")
        if answer.status == 404 and b"page not found" in whole(answer):
            missing.append(f"{method} {path}")
    assert [m for m in missing if not m.startswith("POST /build")] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.5", 1_700_000_000 * 10**9 + 5 * 10**8),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * 10**9),
        ("2023-11-14T23:13:20.000000001+01:00", 1_700_000_000 * 10**9 + 1),
        ("", 0),
    ],
)
def test_times(text: str, expected: int) -> None:
    target = f"/events?since={text.replace('+', '%2B')}"
    request = Request("GET", target, Headers(()), Body(b""), Peer(), Here())
    assert nanoseconds(request, "since") == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (90, "About a minute"),
        (150, "2 minutes"),
        (3700, "About an hour"),
        (3600 * 47, "47 hours"),
        (86400 * 3, "3 days"),
        (86400 * 21, "3 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_durations_are_worded_as_docker_does(seconds: int, words: str) -> None:
    assert human(seconds) == words


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(Status.DEAD), "Dead"),
        (State(Status.REMOVING), "Removal In Progress"),
    ],
)
def test_status_texts(state: State, text: str) -> None:
    assert status_text(state) == text


def test_exec_needs_a_command(site: Site) -> None:
    assert site.ask("POST", "/v1.41/containers/x/exec", {"Cmd": None}).status == 400


def test_a_terminal_needs_a_size(site: Site) -> None:
    assert site.ask("POST", "/v1.41/containers/x/resize?h=24&w=80").status == 200
    assert site.containers.calls[-1][1] == ("x", 24, 80)
    assert site.ask("POST", "/v1.41/containers/x/resize?h=24").status == 400


def test_frames_are_taken_apart_for_websockets() -> None:
    from lading.api.websocket import Frames

    stream = b"".join(
        struct.pack(">BxxxL", n, len(text)) + text for n, text in ((1, b"hello "), (2, b"world"))
    )
    for step in (1, 3, 100):
        frames = Frames()
        pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
        assert b"".join(map(frames.payload, pieces)) == b"hello world"
