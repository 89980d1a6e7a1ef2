"""A daemon's answers against the published definitions of the API, endpoint by endpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lading.http.client import Client
from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root

VERSIONS = ("1.41", "1.51")


class Scene:
    """Something of each kind on a running daemon, to be looked at in one version of the API."""

    def __init__(self, daemon: Daemon, version: str) -> None:
        self.client = Client(daemon.host, timeout=60)
        self.version = version
        self.names = {
            "container": "schema-container",
            "network": "schema-network",
            "volume": "schema-volume",
            "image": "busybox",
        }

    def ask(self, method: str, path: str, body: object = None, **query: object) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        with self.client.request(
            method, f"/v{self.version}{path}", body=data, headers=headers, query=query
        ) as answer:
            text = answer.read()
            if answer.headers.get("content-type", "").startswith("application/json"):
                return answer.status, json.loads(text)
            return answer.status, text

    def need(self, method: str, path: str, body: object = None, **query: object) -> Any:
        status, value = self.ask(method, path, body, **query)
        assert status < 300, (method, path, status, value)
        return value

    def set_up(self) -> None:
        self.need("POST", "/volumes/create", {"Name": self.names["volume"], "Labels": {"a": "b"}})
        self.need("POST", "/networks/create", {"Name": self.names["network"]})
        self.names["id"] = self.need(
            "POST",
            "/containers/create",
            {
                "Image": "busybox",
                "Cmd": ["sh", "-c", "touch /made; sleep 1000"],
                "Labels": {"a": "b"},
                "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**12},
                "HostConfig": {
                    "Binds": [f"{self.names['volume']}:/data"],
                    "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]},
                    "NetworkMode": self.names["network"],
                    "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
                },
            },
            name=self.names["container"],
        )["Id"]
        self.need("POST", f"/containers/{self.names['container']}/start")
        self.names["exec"] = self.need(
            "POST", f"/containers/{self.names['container']}/exec", {"Cmd": ["true"]}
        )["Id"]

    def tear_down(self) -> None:
        self.ask("DELETE", f"/containers/{self.names['container']}", force=True, v=True)
        self.ask("DELETE", f"/networks/{self.names['network']}")
        self.ask("DELETE", f"/volumes/{self.names['volume']}")
        self.client.close()


@pytest.fixture(params=VERSIONS, scope="module")
def scene(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Scene]:
    scene = Scene(daemon, request.param)
    try:
        scene.set_up()
        yield scene
    finally:
        scene.tear_down()


# Path in the definitions, path on the daemon, query.
LOOKS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("/_ping", "/_ping", {}),
    ("/version", "/version", {}),
    ("/info", "/info", {}),
    ("/system/df", "/system/df", {}),
    ("/containers/json", "/containers/json", {"all": True, "size": True}),
    ("/containers/{id}/json", "/containers/{container}/json", {"size": True}),
    ("/containers/{id}/top", "/containers/{container}/top", {}),
    ("/containers/{id}/changes", "/containers/{container}/changes", {}),
    ("/containers/{id}/stats", "/containers/{container}/stats", {"stream": False}),
    ("/exec/{id}/json", "/exec/{exec}/json", {}),
    ("/images/json", "/images/json", {}),
    ("/images/{name}/json", "/images/{image}/json", {}),
    ("/images/{name}/history", "/images/{image}/history", {}),
    ("/networks", "/networks", {}),
    ("/networks/{id}", "/networks/{network}", {}),
    ("/volumes", "/volumes", {}),
    ("/volumes/{name}", "/volumes/{volume}", {}),
    ("/plugins", "/plugins", {}),
)


@pytest.mark.parametrize(("path", "target", "query"), LOOKS, ids=[row[0] for row in LOOKS])
def test_what_is_looked_at(
    scene: Scene,
    definitions: Callable[[str], Any],
    path: str,
    target: str,
    query: dict[str, object],
) -> None:
    status, value = scene.ask("GET", target.format(**scene.names), **query)
    assert status == 200, value
    if isinstance(value, bytes):
        value = value.decode()
    definitions(scene.version).hold("GET", path, status, value)


CHANGES: tuple[tuple[str, str, str, object], ...] = (
    ("POST", "/containers/{id}/update", "/containers/{container}/update", {"CpuShares": 512}),
    ("POST", "/containers/prune", "/containers/prune", None),
    ("POST", "/images/prune", "/images/prune", None),
    ("POST", "/networks/prune", "/networks/prune", None),
    ("POST", "/volumes/prune", "/volumes/prune", None),
)


@pytest.mark.parametrize(
    ("method", "path", "target", "body"), CHANGES, ids=[row[1] for row in CHANGES]
)
def test_what_is_changed(
    scene: Scene,
    definitions: Callable[[str], Any],
    method: str,
    path: str,
    target: str,
    body: object,
) -> None:
    status, value = scene.ask(method, target.format(**scene.names), body)
    assert status == 200, value
    definitions(scene.version).hold(method, path, status, value)


@pytest.mark.parametrize(
    ("method", "path", "target", "body"),
    [
        ("POST", "/containers/create", "/containers/create", {"Image": "busybox", "Cmd": ["true"]}),
        ("POST", "/containers/{id}/exec", "/containers/{container}/exec", {"Cmd": ["true"]}),
        ("POST", "/volumes/create", "/volumes/create", {}),
        ("POST", "/networks/create", "/networks/create", {"Name": "schema-other"}),
        ("POST", "/commit", "/commit?container={container}", None),
    ],
    ids=["container", "exec", "volume", "network", "commit"],
)
def test_what_is_made(
    scene: Scene,
    definitions: Callable[[str], Any],
    method: str,
    path: str,
    target: str,
    body: object,
) -> None:
    target, _, query = target.format(**scene.names).partition("?")
    pairs = dict(part.split("=") for part in query.split("&") if part)
    status, value = scene.ask(method, target, body, **pairs)
    try:
        assert status == 201, value
        definitions(scene.version).hold(method, path, status, value)
    finally:
        for kind, name in (
            ("containers", value.get("Id")),
            ("volumes", value.get("Name")),
            ("networks", value.get("Id")),
            ("images", value.get("Id")),
        ):
            if name:
                scene.ask("DELETE", f"/{kind}/{name}")


@pytest.mark.parametrize(
    ("method", "path", "target", "status"),
    [
        ("GET", "/containers/{id}/json", "/containers/no-such/json", 404),
        ("POST", "/containers/{id}/start", "/containers/no-such/start", 404),
        ("GET", "/images/{name}/json", "/images/no-such/json", 404),
        ("GET", "/networks/{id}", "/networks/no-such", 404),
        ("GET", "/volumes/{name}", "/volumes/no-such", 404),
        ("POST", "/containers/create", "/containers/create", 400),
        ("DELETE", "/volumes/{name}", "/volumes/schema-volume", 409),
        ("DELETE", "/containers/{id}", "/containers/schema-container", 409),
    ],
)
def test_errors(
    scene: Scene,
    definitions: Callable[[str], Any],
    method: str,
    path: str,
    target: str,
    status: int,
) -> None:
    got, value = scene.ask(method, target, {"Image": 1} if "create" in target else None)
    assert got == status, value
    definitions(scene.version).hold(method, path, status, value)


def test_events_are_one_object_per_line(scene: Scene, definitions: Callable[[str], Any]) -> None:
    query = {"since": 1, "until": int(time.time())}
    with scene.client.request("GET", f"/v{scene.version}/events", query=query) as answer:
        lines = list(answer.lines())
    assert lines
    for line in lines:
        event = json.loads(line)
        definitions(scene.version).hold("GET", "/events", 200, event)
