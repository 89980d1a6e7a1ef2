"""What Docker 1.0, 1.5 and 1.9 send, request by request, giving up where those programs gave up."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lading.testing.images import made_image, made_layer, unpacked

AGENTS = {
    "1.0.0": "docker/1.0.0 go/go1.2.1 git-commit/63fe64c kernel/3.13.0 os/linux arch/amd64",
    "1.5.0": "docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.13.0 os/linux arch/amd64",
    "1.9.1": "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.19.0 os/linux arch/amd64",
}
EVERY = pytest.mark.parametrize("version", sorted(AGENTS))
BASE, MIDDLE, TOP = ("1a" * 32, "2b" * 32, "3c" * 32)


class GaveUp(Exception):
    """The old program would have stopped here with an error."""


class OldDocker:
    """One operation of a Docker of a version over plain HTTP; ``login`` is ``name:password``."""

    def __init__(self, site: Any, version: str, login: str = "") -> None:
        self._site, self._version, self._login = site, version, login
        self._tokens: list[str] = []
        self.registry = ""
        self.seen: list[str] = []

    def _basic(self) -> str:
        return f"Basic {base64.b64encode((self._login or ':').encode()).decode()}"

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """A request with what each of them carries; Go asks for gzip by itself."""
        sent = {"User_Agent": AGENTS[self._version], "Accept_Encoding": "gzip", **headers}
        self.seen.append(f"{method} {path}")
        answer = self._site(method, path, body, **sent)
        assert "content-encoding" not in answer.headers
        return answer

    def ask_index(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """With the password if there is one, for a token."""
        auth = {}
        # 1.0 and 1.5 send an empty name and password on a push; 1.9 sends nothing then.
        if self._login or (method == "PUT" and self._version != "1.9.1"):
            auth["Authorization"] = self._basic()
        elif self._tokens:
            auth["Authorization"] = f"Token {','.join(self._tokens)}"
        if body is not None:
            auth["Content_Type"] = "application/json"
        answer = self.send(method, path, body, X_Docker_Token="true", **auth, **headers)
        if token := answer.headers.get("x-docker-token"):
            self._tokens = [token]
        if answer.status == 401:
            raise GaveUp("Authentication is required.")
        return answer

    def ask_registry(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """With the token, which this server begins with its scheme already."""
        auth = {"Authorization": f"Token {','.join(self._tokens)}"} if self._tokens else {}
        return self.send(method, f"/v1/{path}", body, **auth, **headers)

    def find(self) -> None:
        """Which protocol the host speaks: TLS first, then v2 unless it is too old, then v1."""
        host, port = self._site.host.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as hello:
            hello.sendall(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160))
            assert not hello.recv(1024).startswith(b"\x16"), "this server has no TLS"
        if self._version != "1.0.0":
            answer = self.send("GET", "/v2/")
            if "registry/2.0" in answer.headers.get("docker-distribution-api-version", ""):
                raise GaveUp("would go on with signed manifests of schema 1")
        if self._version != "1.9.1":
            # Not through the client that sends its own name.
            answer = self.send("GET", "/v1/_ping", User_Agent="Go 1.1 package http")
            assert answer.status == 200
            assert answer.headers["x-docker-registry-standalone"].lower() in ("true", "1")

    def _endpoints(self, answer: Any) -> None:
        """The registry, at the scheme of the index."""
        assert answer.headers["x-docker-endpoints"] == self._site.host
        self.registry = f"http://{answer.headers['x-docker-endpoints']}/v1/"

    def push(self, name: str, images: list[tuple[str, bytes, bytes]], tags: list[str]) -> None:
        """Images as (id, document, gzip), parents first; the tags are the last one's."""
        self.find()
        rows = [{"id": image} for image, _, _ in images[:-1]]
        rows += [{"id": images[-1][0], "Tag": tag} for tag in tags]
        answer = self.ask_index("PUT", f"/v1/repositories/{name}/", json.dumps(rows).encode())
        if answer.status not in (200, 201):
            raise GaveUp(f"Error: Status {answer.status} trying to push repository {name}")
        if not answer.headers.get("x-docker-token") or not answer.headers.get("x-docker-endpoints"):
            raise GaveUp("Index response didn't contain an access token or any endpoints")
        self._endpoints(answer)
        if self._version == "1.0.0":
            for image in images:
                if not self._is_there(image[0]):
                    self._push_image(*image)
        else:
            missing = [image for image in images if not self._is_there(image[0])]
            for image in missing:
                self._push_image(*image)
        for tag in tags:
            revision = f'"{images[-1][0]}"'.encode()
            path = f"repositories/{name}/tags/{tag}"
            answer = self.ask_registry("PUT", path, revision, Content_type="application/json")
            if answer.status not in (200, 201):
                raise GaveUp(f"Internal server error: {answer.status} trying to push tag {tag}")
        endpoints = {"X_Docker_Endpoints": self.registry}
        answer = self.ask_index("PUT", f"/v1/repositories/{name}/images", b"[]", **endpoints)
        if answer.status != 204:
            raise GaveUp(f"Error: Status {answer.status} trying to push checksums {name}")

    def _is_there(self, image: str) -> bool:
        return bool(self.ask_registry("GET", f"images/{image}/json").status == 200)

    def _push_image(self, image: str, document: bytes, layer: bytes) -> None:
        answer = self.ask_registry(
            "PUT", f"images/{image}/json", document, Content_type="application/json"
        )
        if answer.status != 200:
            if answer.json.get("error") == "Image already exists":
                return
            raise GaveUp(f"HTTP code {answer.status} while uploading metadata: {answer.body!r}")
        kind = {} if self._version == "1.0.0" else {"Content_Type": "application/octet-stream"}
        answer = self.ask_registry("PUT", f"images/{image}/layer", _chunks(layer), **kind)
        if answer.status != 200:
            raise GaveUp(f"Received HTTP code {answer.status} while uploading layer")
        payload = hashlib.sha256(document + b"\n" + layer).hexdigest()
        answer = self.ask_registry(
            "PUT",
            f"images/{image}/checksum",
            b"",
            X_Docker_Checksum=f"tarsum+sha256:{'0' * 64}",
            X_Docker_Checksum_Payload=f"sha256:{payload}",
        )
        if answer.status != 200:
            raise GaveUp(f"HTTP code {answer.status} while uploading metadata: {answer.body!r}")

    def pull(self, name: str, tag: str, *, broken_at: int = 0) -> list[tuple[Any, bytes]]:
        """Documents and layers, root first. ``broken_at``: where the first layer breaks off."""
        self.find()
        answer = self.ask_index("GET", f"/v1/repositories/{name}/images")
        if answer.status != 200:
            raise GaveUp(f"HTTP code: {answer.status}")
        self._endpoints(answer)
        assert isinstance(answer.json, list)
        full = name if "/" in name else f"library/{name}"
        if self._version == "1.9.1":
            answer = self.ask_registry("GET", f"repositories/{full}/tags/{tag}")
            if answer.status == 404:
                raise GaveUp(f"Tag {tag} not found in repository {name}")
            top = answer.json
        else:
            answer = self.ask_registry("GET", f"repositories/{full}/tags")
            if tag not in answer.json:
                raise GaveUp(f"Tag {tag} not found in repository {name}")
            top = answer.json[tag]
        assert isinstance(top, str)
        assert len(top) == 64
        history = self.ask_registry("GET", f"images/{top}/ancestry").json
        assert history[0] == top
        return [self._pull_image(image, broken_at) for image in reversed(history)]

    def _pull_image(self, image: str, broken_at: int) -> tuple[Any, bytes]:
        answer = self.ask_registry("GET", f"images/{image}/json")
        if answer.status != 200:
            raise GaveUp(f"HTTP code {answer.status}")
        size, document = int(answer.headers["x-docker-size"]), answer.json
        assert document["id"] == image
        path = f"images/{image}/layer"
        if self._version == "1.0.0":
            assert self.ask_registry("HEAD", path).headers["accept-ranges"] == "bytes"
        answer = self.ask_registry("GET", path)
        if answer.status != 200:
            raise GaveUp(f"Server error: Status {answer.status} while fetching image layer")
        assert answer.headers["accept-ranges"] == "bytes"
        content = answer.body
        if broken_at:
            content = content[:broken_at]
            # The end is one too many, as they sent it.
            rest = self.ask_registry("GET", path, Range=f"bytes={broken_at}-{size}")
            assert rest.status == 206, "the server doesn't support byte ranges"
            content += rest.body
            after = self.ask_registry("GET", path, Range=f"bytes={size}-{size}")
            assert (after.status, after.headers["content-length"]) == (416, "0")
        assert len(content) == size
        return document, content

    def log_in(self) -> str:
        """``docker login``: make the user, or check the password of one that is there."""
        name, _, password = self._login.partition(":")
        body = {"username": name, "password": password, "email": "a@b", "auth": ""}
        kind = {"Content_Type": "application/json; charset=utf-8"}
        answer = self.send("POST", "/v1/users/", json.dumps(body).encode(), **kind)
        if answer.status == 201:
            return "Account created"
        taken = answer.status == 400 and answer.body == b'"Username or email already exists"'
        if not taken and answer.status != 401:
            raise GaveUp(f"Registration: {answer.body!r}")
        answer = self.send("GET", "/v1/users/", Authorization=self._basic())
        if answer.status == 401:
            raise GaveUp("Wrong login/password, please try again")
        if answer.status != 200:
            raise GaveUp(f"Login: {answer.body!r}")
        return "Login Succeeded"


def _chunks(content: bytes) -> Iterator[bytes]:
    """An iterator goes out chunked."""
    for at in range(0, len(content), 1000):
        yield content[at : at + 1000]


def chain(*, trailer: bool = True) -> list[tuple[str, bytes, bytes]]:
    """An image of three links, the second without content; Docker 1.0 wrote no trailer."""
    made = []
    layers = [made_layer({"a": b"one", "b": b"two"}), bytes(1024), made_layer({"a": b"three"})]
    for image, parent, layer in zip((BASE, MIDDLE, TOP), ("", BASE, MIDDLE), layers, strict=True):
        document: dict[str, Any] = {
            "id": image,
            "created": "2014-06-09T10:00:00.123456789Z",
            "container_config": {"Cmd": ["/bin/sh", "-c", f"#(nop) {image[:2]}"]},
            "config": {"Cmd": ["/a"]},
            "docker_version": "1.0.0",
            "architecture": "amd64",
            "os": "linux",
            "Size": 0 if image == MIDDLE else 6,
        }
        if parent:
            document["parent"] = parent
        tar = layer if trailer else layer.rstrip(b"\0") if image == MIDDLE else layer[:-1024]
        made.append((image, json.dumps(document).encode(), gzip.compress(tar, mtime=0)))
    return made


@EVERY
def test_push_pull_and_push_again(site: Any, version: str) -> None:
    images = chain(trailer=version != "1.0.0")
    OldDocker(site, version).push("team/app", images, ["v1", "latest"])
    for tag in ("v1", "latest"):
        found = OldDocker(site, version).pull("team/app", tag)
        assert found == [(json.loads(document), layer) for _, document, layer in images]
    again = OldDocker(site, version)
    again.push("team/app", images, ["v2"])
    assert not [line for line in again.seen if line.endswith(("/layer", "/checksum"))]
    with pytest.raises(GaveUp, match=r"Tag no not found"):
        OldDocker(site, version).pull("team/app", "no")
    with pytest.raises(GaveUp, match="HTTP code: 404"):
        OldDocker(site, version).pull("team/none", "v1")


@EVERY
def test_a_name_of_one_part(site: Any, version: str) -> None:
    OldDocker(site, version).push("app", chain(), ["latest"])
    assert len(OldDocker(site, version).pull("app", "latest")) == 3


@EVERY
def test_a_layer_that_breaks_off_is_taken_up(site: Any, version: str) -> None:
    images = chain()
    OldDocker(site, version).push("team/app", images, ["v1"])
    found = OldDocker(site, version).pull("team/app", "v1", broken_at=10)
    assert [layer for _, layer in found] == [layer for _, _, layer in images]


@EVERY
def test_a_push_that_broke_off_is_taken_up(site: Any, version: str) -> None:
    image, document, layer = chain()[0]
    begun = OldDocker(site, version)
    begun.ask_index("PUT", "/v1/repositories/team/app/", json.dumps([{"id": image}]).encode())
    assert begun.ask_registry("PUT", f"images/{image}/json", document).status == 200
    host, port = site.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as cut:
        head = f"PUT /v1/images/{image}/layer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
        cut.sendall(f"{head}\r\n\r\n64\r\n".encode() + layer[:50])
    OldDocker(site, version).push("team/app", chain(), ["v1"])
    assert OldDocker(site, version).pull("team/app", "v1")[0][1] == layer


@EVERY
def test_what_a_client_of_today_pushed(site: Any, version: str) -> None:
    image = made_image([{"f": b"one"}, {"g": b"two"}], empty_lines=1)
    rows = []
    for layer in image.layers:
        stream = layer.open()
        content = stream.read(1 << 20)
        site("POST", f"/v2/team/new/blobs/uploads/?digest={layer.digest}", content)
        kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        rows.append({"mediaType": kind, "digest": layer.digest, "size": len(content)})
    site("POST", f"/v2/team/new/blobs/uploads/?digest={image.id}", image.config)
    kind = "application/vnd.docker.container.image.v1+json"
    config = {"mediaType": kind, "digest": image.id, "size": len(image.config)}
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    body = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": rows}
    done = site("PUT", "/v2/team/new/manifests/1", body, Content_Type=kind)
    assert done.status == 201
    found = OldDocker(site, version).pull("team/new", "1")
    files = [dict(unpacked(layer)) for _, layer in found]
    assert [f for f in files if f] == [{"f": b"one"}, {"g": b"two"}]
    assert found[-1][0]["config"]["Cmd"] == ["/run"]


@EVERY
def test_with_users(start: Callable[..., Any], version: str) -> None:
    site = start(users=("team", "other"))
    with pytest.raises(GaveUp, match="Authentication is required"):
        OldDocker(site, version).push("team/app", chain(), ["v1"])
    with pytest.raises(GaveUp, match="Status 403"):
        OldDocker(site, version, "other:other-word").push("team/app", chain(), ["v1"])
    with pytest.raises(GaveUp, match="Wrong login"):
        OldDocker(site, version, "team:wrong").log_in()
    mine = OldDocker(site, version, "team:team-word")
    assert mine.log_in() == "Login Succeeded"
    mine.push("team/app", chain(), ["v1"])
    assert len(OldDocker(site, version).pull("team/app", "v1")) == 3
    site(
        "PUT", "/v1/repositories/team/app/properties", {"access": "private"}, user="team:team-word"
    )
    with pytest.raises(GaveUp, match="Authentication is required"):
        OldDocker(site, version).pull("team/app", "v1")
    assert len(OldDocker(site, version, "team:team-word").pull("team/app", "v1")) == 3


def test_login_makes_a_user_where_that_is_allowed(start: Callable[..., Any]) -> None:
    site = start(signup=True)
    assert OldDocker(site, "1.0.0", "fresh:long enough").log_in() == "Account created"
    assert OldDocker(site, "1.9.1", "fresh:long enough").log_in() == "Login Succeeded"


def test_search(site: Any) -> None:
    OldDocker(site, "1.5.0").push("team/app", chain(), ["v1"])
    found = OldDocker(site, "1.5.0").ask_index("GET", "/v1/search?q=app").json
    (row,) = found["results"]
    assert row["name"] == "team/app"
    assert isinstance(row["star_count"], int)
    assert all(isinstance(row[flag], bool) for flag in ("is_official", "is_automated"))
