"""Any request at all: bodies of the right shape and of none, queries, names, bytes."""

from __future__ import annotations

import json
import socket
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lading.api import make_app
from lading.model import docker
from lading.model.docker_networks import NetworkCreate

from .conftest import Target
from .shapes import junk, quick, shaped, words

pytestmark = pytest.mark.root

#: Routes that stream until somebody ends them, wait for something, or ask another host.
ENDLESS = (
    *("/events", "/containers/{id}/attach", "/containers/{id}/attach/ws", "/containers/{id}/wait"),
    *("/containers/{id}/logs", "/containers/{id}/stats", "/images/search", "/images/create"),
    *("/distribution/{name:path}/json", "/images/{name:path}/push", "/auth", "/session", "/grpc"),
    *("/build/session", "/lading/manifests/{name:path}", "/images/prune", "/images/load"),
    *("/lading/storage/migrate", "/lading/mounts", "/build"),
)
#: Nothing that is made of generated settings is run here.
RUNNING = ("/containers/{id}/start", "/containers/{id}/restart", "/exec/{id}/start")


def routes() -> list[tuple[str, str]]:
    """All routes of the API with a pattern, from its own table."""
    router = make_app(MagicMock())._router
    found = {*router._exact}
    found |= {(method, row.pattern) for method, rows in router._routes.items() for row in rows}
    return sorted((m, p) for m, p in found if p not in (*ENDLESS, *RUNNING))


PARAMETERS = (
    *("all", "filters", "force", "v", "name", "t", "signal", "limit", "size", "since", "until"),
    *("before", "path", "h", "w", "dest", "pause", "repo", "tag", "container", "comment", "q"),
    *("author", "changes", "fromSrc", "noprune", "ps_args", "type", "verbose", "names", "digests"),
)
QUERY = st.dictionaries(st.sampled_from(PARAMETERS), words | junk.map(json.dumps), max_size=4)


@quick(250)
@given(st.sampled_from(routes()), words, QUERY, junk)
def test_any_request_gets_an_answer(
    target: Target, route: tuple[str, str], name: str, query: dict[str, Any], body: Any
) -> None:
    method, pattern = route
    if name in ("busybox", "sha256:" + "0" * 64):
        name = "x"  # the image is for all tests
    path = pattern
    for part in ("{id}", "{name}", "{name:path}"):
        path = path.replace(part, quote(name, safe="") or "x")
    target.call(method, path, None if method in ("GET", "HEAD") else body, **query)


#: ``/sys/fs/cgroup`` is the host's: groups are made below the daemon's own parent only.
HOST = shaped(docker.HostConfig, most=3, CgroupParent=st.just(""), AutoRemove=st.just(False))
CREATE = shaped(
    docker.ContainerCreate,
    most=3,
    Image=st.sampled_from(["busybox", "busybox", "busybox", "nope"]),
    Cmd=st.sampled_from([["true"], ["true"], ["true"], [], "true", ["nothing"]]),
    Entrypoint=st.sampled_from([None, [], ["/bin/busybox"]]),
    HostConfig=HOST,
)


def created(**host: Any) -> Any:
    return {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}


@quick(150)
@given(CREATE, st.sampled_from(["", "", "x"]) | words)
@example(created(CpuRealtimePeriod=-(2**31)), "")  # the kernel's refusal was an error of ours
def test_any_container_is_created_and_started_or_refused(
    target: Target, body: Any, name: str
) -> None:
    status, answer = target.call("POST", "/containers/create", body, name=name)
    if status == 201:
        identity = answer["Id"]
        target.call("POST", f"/containers/{identity}/start")
        _, shown = target.call("GET", f"/containers/{identity}/json")
        assert shown["Id"] == identity
        target.call("GET", "/containers/json", all=1, size=1)
        status, _ = target.call("DELETE", f"/containers/{identity}", v=1, force=1)
        assert status == 204


@quick(60)
@given(shaped(docker.Update))
def test_any_update_is_made_or_refused(target: Target, body: Any) -> None:
    create = {"Image": "busybox", "Cmd": ["true"]}
    _, created = target.call("POST", "/containers/create", create)
    target.call("POST", f"/containers/{created['Id']}/update", body)
    status, _ = target.call("GET", f"/containers/{created['Id']}/json")
    assert status == 200
    target.call("DELETE", f"/containers/{created['Id']}")


@quick(80)
@given(shaped(NetworkCreate, Name=words, Driver=st.sampled_from(["bridge", "", "nope"])))
def test_any_network_is_made_or_refused(target: Target, body: Any) -> None:
    status, made = target.call("POST", "/networks/create", body)
    if status == 201:
        target.call("GET", f"/networks/{made['Id']}")
        status, _ = target.call("DELETE", f"/networks/{made['Id']}")
        assert status == 204


@quick(60)
@given(shaped(docker.VolumeCreate, Name=words))
@example({"Name": "x" * 300})  # its row stayed, and was in the way of the next
def test_any_volume_is_made_or_refused(target: Target, body: Any) -> None:
    status, made = target.call("POST", "/volumes/create", body)
    if status == 201:
        status, _ = target.call("DELETE", f"/volumes/{made['Name']}")
        assert status == 204


@quick(40)
@given(shaped(docker.ExecConfig))
def test_any_exec_is_run_or_refused(target: Target, body: Any) -> None:
    """In one container without network; what is run there can do no harm."""
    _, found = target.call("GET", "/containers/json", filters='{"name":["fuzzed"]}')
    if not found:
        host = {"NetworkMode": "none"}
        create = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}
        target.call("POST", "/containers/create", create, name="fuzzed")
        target.call("POST", "/containers/fuzzed/start")
    status, made = target.call("POST", "/containers/fuzzed/exec", {**body, "Privileged": False})
    if status == 201:
        target.call("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        _, shown = target.call("GET", f"/exec/{made['Id']}/json")
        assert shown["ID"] == made["Id"]


REQUEST = (
    b"POST /containers/create?name=x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
)


@quick(120)
@given(
    st.binary(max_size=200)
    | st.tuples(
        st.lists(
            st.tuples(st.integers(0, len(REQUEST)), st.integers(0, 9), st.binary(max_size=9)),
            max_size=4,
        ),
        st.integers(1, len(REQUEST)),
    ).map(lambda damage: damaged(*damage))
)
def test_any_bytes_are_answered_or_cut_off(target: Target, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(target.daemon.socket))
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1."), answer
    assert b" 500 " not in answer[:13], answer
    assert target.daemon.answers()


def damaged(edits: list[tuple[int, int, bytes]], end: int) -> bytes:
    """The request with some bytes replaced, cut off at ``end``."""
    data = REQUEST
    for at, length, piece in edits:
        data = data[:at] + piece + data[at + length :]
    return data[:end]
