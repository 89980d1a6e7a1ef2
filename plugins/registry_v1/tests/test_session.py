"""Index and registry apart, as the public hub was: tokens, cookies, quirks of the programs."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lading.errors import Denied, Invalid, NotFound, Unauthorized, Unavailable, Unsupported
from lading.hooks import Context
from lading.hooks.registry import Credentials, Remote
from lading.testing.images import made_image, made_layer, unpacked
from lading_registry_v1 import RegistryV1

IMAGE = "a" * 64
ME = Credentials("me", "secret")
BASIC = "Basic bWU6c2VjcmV0"
TOKEN = 'signature=0123456789,repository="team/app",access=read'


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False

    @classmethod
    def json(cls, value: object, **headers: str) -> Reply:
        return cls(
            200, json.dumps(value).encode(), {k.replace("_", "-"): v for k, v in headers.items()}
        )


@dataclass
class Host:
    """A server whose answers a test writes down, by method and path."""

    answers: dict[tuple[str, str], Reply | Callable[[dict[str, str], bytes], Reply]] = field(
        default_factory=dict
    )
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.seen]

    def header(self, path: str, name: str) -> list[str | None]:
        return [headers.get(name) for _, seen, headers, _ in self.seen if seen == path]

    def handler(self) -> type[BaseHTTPRequestHandler]:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self._body()
                fields = dict(self.headers.items())
                host.seen.append((self.command, self.path, fields, body))
                found = host.answers.get((self.command, self.path), Reply(404, b"<h1>no</h1>"))
                reply = found if isinstance(found, Reply) else found(fields, body)
                self.send_response(reply.status)
                length = {"Content-Length": str(len(reply.body))}
                for name, value in (length | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
                self.close_connection = reply.close

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the base wants these

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        return Handler


@pytest.fixture
def make_host() -> Iterator[Callable[[], Host]]:
    servers = []

    def make() -> Host:
        host = Host()
        server = ThreadingHTTPServer(("127.0.0.1", 0), host.handler())
        server.daemon_threads = True
        host.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return host

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def backend(tmp_path: Path) -> RegistryV1:
    return RegistryV1(Context("v1", tmp_path, tmp_path))


def remote(host: Host, **more: Any) -> Remote:
    return Remote(host.name, "team/app", insecure=True, operation="one", timeout=5, **more)


def document(**more: Any) -> bytes:
    return json.dumps({"id": IMAGE, "created": "2014-05-01T00:00:00Z", **more}).encode()


def layer() -> bytes:
    return gzip.compress(made_layer({"f": b"content" * 999}), mtime=0)


def payload(body: bytes, content: bytes) -> str:
    found = hashlib.sha256(body + b"\n" + content)
    return f"sha256:{found.hexdigest()}"


def split(make_host: Callable[[], Host]) -> tuple[Host, Host]:
    """An index, and a registry that it names and that wants its token."""
    index, registry = make_host(), make_host()
    standalone = {"X-Docker-Registry-Standalone": "False"}
    index.answers["GET", "/v1/_ping"] = Reply(200, b"{}", standalone)
    index.answers["GET", "/v1/repositories/team/app/images"] = Reply.json(
        [{"id": IMAGE}], X_Docker_Token=TOKEN, X_Docker_Endpoints=f"{registry.name}, other.example"
    )

    def guarded(reply: Reply) -> Callable[[dict[str, str], bytes], Reply]:
        def answer(headers: dict[str, str], body: bytes) -> Reply:
            # A token is good once; a cookie stands for it afterwards.
            by_token = headers.get("Authorization") == f"Token {TOKEN}"
            if not by_token and "session=abc" not in headers.get("Cookie", ""):
                return Reply(401, b'{"error": "Requires authorization"}')
            return Reply(
                reply.status, reply.body, {**reply.headers, "Set-Cookie": "session=abc; Path=/"}
            )

        return answer

    path = f"/v1/images/{IMAGE}"
    size = {"X-Docker-Size": str(len(layer()))}
    for key, reply in {
        "/v1/repositories/team/app/tags": Reply.json({"v1": IMAGE}),
        f"{path}/ancestry": Reply.json([IMAGE]),
        f"{path}/json": Reply(200, document(), size),
        f"{path}/layer": Reply(200, layer()),
    }.items():
        registry.answers["GET", key] = guarded(reply)
    return index, registry


def test_the_index_leads_to_the_registry(
    make_host: Callable[[], Host], backend: RegistryV1
) -> None:
    index, registry = split(make_host)
    where = remote(index, credentials=ME)
    found = backend.resolve(remote=where, reference="v1", platform="")
    stream = backend.open_blob(remote=where, layer=found.layers[0], offset=0)
    assert unpacked(stream.read(1 << 20)) == {"f": b"content" * 999}
    stream.close()
    images = "/v1/repositories/team/app/images"
    assert index.header(images, "Authorization") == [BASIC]
    assert index.header(images, "X-Docker-Token") == ["true"]
    # The password is the index's business only.
    assert all("Basic" not in str(headers) for _, _, headers, _ in registry.seen)
    assert registry.header(f"/v1/images/{IMAGE}/layer", "Cookie") == ["session=abc"]
    assert json.loads(found.config)["history"] == [{"created": "2014-05-01T00:00:00Z"}]
    backend.close(remote=where)


def alone(host: Host, **documents: Reply) -> Host:
    """One program that is both, with one image."""
    path = f"/v1/images/{IMAGE}"
    host.answers["GET", "/v1/_ping"] = Reply(200, b"true")
    token = f"Token {TOKEN}"
    host.answers["GET", "/v1/repositories/team/app/images"] = Reply.json(
        [{"id": IMAGE}], X_Docker_Token=token
    )
    host.answers["GET", "/v1/repositories/team/app/tags"] = Reply.json({"v1": IMAGE})
    host.answers["GET", f"{path}/ancestry"] = Reply.json([IMAGE])
    host.answers["GET", f"{path}/json"] = Reply(
        200, document(), {"X-Docker-Size": str(len(layer()))}
    )
    host.answers["GET", f"{path}/layer"] = Reply(200, layer())
    for name, reply in documents.items():
        host.answers["GET", f"{path}/{name}"] = reply
    return host


def test_the_scheme_in_a_token_is_not_doubled(
    make_host: Callable[[], Host], backend: RegistryV1
) -> None:
    host = alone(make_host())
    backend.resolve(remote=remote(host), reference="v1", platform="")
    assert host.header(f"/v1/images/{IMAGE}/json", "Authorization") == [f"Token {TOKEN}"]


def test_the_hubs_form_of_tags(make_host: Callable[[], Host], backend: RegistryV1) -> None:
    host = alone(make_host())
    rows = [{"name": "v1", "layer": IMAGE}]
    host.answers["GET", "/v1/repositories/team/app/tags"] = Reply.json(rows)
    assert backend.resolve(remote=remote(host), reference="v1", platform="").layers[0].key == IMAGE
    assert list(backend.tags(remote=remote(host))) == ["v1"]


def test_resume_with_the_range_of_the_time(
    make_host: Callable[[], Host], backend: RegistryV1
) -> None:
    """docker-registry 0.9.1: no unit in Content-Range, one byte too many announced, then closes."""
    host = alone(make_host())
    content = layer()

    def ranged(headers: dict[str, str], body: bytes) -> Reply:
        wanted = headers.get("Range")
        if wanted is None:
            return Reply(200, content)
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        rest = content[start:]
        fields = {
            "Content-Range": f"{start}-{len(content)}/{len(content)}",
            "Content-Length": str(len(rest) + 1),
        }
        return Reply(206, rest, fields, close=True)

    host.answers["GET", f"/v1/images/{IMAGE}/layer"] = ranged
    where = remote(host)
    (row,) = backend.resolve(remote=where, reference="v1", platform="").layers
    begun = backend.open_blob(remote=where, layer=row, offset=0)
    first = begun.read(10)
    begun.close()
    rest = backend.open_blob(remote=where, layer=row, offset=len(first))
    parts = [first]
    while part := rest.read(1 << 16):
        parts.append(part)
    assert b"".join(parts) == content
    assert host.header(f"/v1/images/{IMAGE}/layer", "Range")[-1] == (
        f"bytes={len(first)}-{len(content) - 1}"
    )


def test_a_checksum_that_is_told_is_compared(
    make_host: Callable[[], Host], backend: RegistryV1
) -> None:
    right = payload(document(), layer())
    size = str(len(layer()))
    for checksum, fits in ((right, True), ("sha256:" + "0" * 64, False)):
        headers = {"X-Docker-Size": size, "X-Docker-Checksum-Payload": checksum}
        host = alone(make_host(), json=Reply(200, document(), headers))
        where = remote(host)
        (row,) = backend.resolve(remote=where, reference="v1", platform="").layers
        stream = backend.open_blob(remote=where, layer=row, offset=0)
        stream.read(1 << 20)
        if fits:
            assert stream.read(1 << 20) == b""
        else:
            with pytest.raises(Invalid, match="has the checksum"):
                stream.read(1 << 20)
        backend.close(remote=where)


@pytest.mark.parametrize(
    "documents",
    [
        {"ancestry": Reply.json([])},
        {"ancestry": Reply.json(["b" * 64, IMAGE])},
        {"ancestry": Reply.json([IMAGE, IMAGE])},
        {"ancestry": Reply.json([IMAGE, "../x"])},
        {"ancestry": Reply.json({"a": 1})},
        {"ancestry": Reply(200, b"no json")},
        {"json": Reply(200, b"{}")},
        {"json": Reply(200, b"[]")},
        {"json": Reply(200, json.dumps({"id": "b" * 64}).encode())},
        {"json": Reply(200, document(parent="b" * 64))},
        {"json": Reply(200, b"\xff\xfe")},
    ],
)
def test_what_does_not_fit_together_is_refused(
    make_host: Callable[[], Host], backend: RegistryV1, documents: dict[str, Reply]
) -> None:
    host = alone(make_host(), **documents)
    with pytest.raises(Invalid):
        backend.resolve(remote=remote(host), reference="v1", platform="")


def test_errors_in_the_words_of_the_registry(
    make_host: Callable[[], Host], backend: RegistryV1
) -> None:
    host = alone(make_host())
    with pytest.raises(NotFound, match="tag other not found"):
        backend.resolve(remote=remote(host), reference="other", platform="")
    with pytest.raises(Unsupported, match="no digests"):
        backend.resolve(remote=remote(host), reference="sha256:" + "0" * 64, platform="")
    path = "/v1/repositories/team/app/images"
    for status, kind in ((401, Unauthorized), (403, Denied), (404, NotFound), (418, Invalid)):
        host.answers["GET", path] = Reply(status, b'{"error": "just so"}')
        with pytest.raises(kind, match="just so"):
            backend.resolve(remote=remote(host), reference="v1", platform="")
    backend.close(remote=remote(host))


def test_a_host_without_index(make_host: Callable[[], Host], backend: RegistryV1) -> None:
    with pytest.raises(Unavailable, match="_ping answers 404"):
        backend.ping(remote=remote(make_host()))


# -- login


@pytest.mark.parametrize(
    ("known", "signup", "kind"),
    [
        (Reply.json("OK"), None, None),
        (Reply(401, b'""'), Reply(201, b'"User Created"'), None),
        (Reply(401, b'""'), Reply(400, b'"Username or email already exists"'), Unauthorized),
        (Reply(401, b'""'), Reply(401, b'""'), Unauthorized),
        (Reply(403, b'""'), None, Denied),
    ],
)
def test_login(
    make_host: Callable[[], Host],
    backend: RegistryV1,
    known: Reply,
    signup: Reply | None,
    kind: type[Exception] | None,
) -> None:
    host = alone(make_host())
    host.answers["GET", "/v1/users/"] = known
    if signup is not None:
        host.answers["POST", "/v1/users/"] = signup
    if kind is None:
        assert backend.login(remote=remote(host, credentials=ME)) == ""
    else:
        with pytest.raises(kind):
            backend.login(remote=remote(host, credentials=ME))
    assert host.header("/v1/users/", "Authorization")[0] == BASIC


# -- push


def test_push_where_a_write_token_cannot_read(
    make_host: Callable[[], Host], backend: RegistryV1
) -> None:
    """A split registry refuses to look an image up; what it has, it says when it is sent."""
    host = make_host()
    image = made_image([{"a": b"one"}, {"b": b"two"}], empty_lines=1)
    host.answers["GET", "/v1/_ping"] = Reply(200, b"{}")
    written = TOKEN.replace("read", "write")
    host.answers["PUT", "/v1/repositories/team/app/"] = Reply.json("", X_Docker_Token=written)
    host.answers["PUT", "/v1/repositories/team/app/images"] = Reply(204)
    host.answers["PUT", "/v1/repositories/team/app/tags/v1"] = Reply.json(True)
    image = type(image)(image.id, image.config, image.layers, ("v1",))
    sums: dict[str, str] = {}

    def prepare(headers: dict[str, str], body: bytes) -> Reply:
        for row in json.loads(body):
            path = f"/v1/images/{row['id']}"
            host.answers["GET", f"{path}/json"] = Reply(401, b'{"error": "Requires authorization"}')
            for part in ("json", "layer", "checksum"):
                host.answers["PUT", f"{path}/{part}"] = Reply.json(True)
        first = json.loads(body)[0]["id"]
        exists = Reply(409, b'{"error": "Image already exists"}')
        host.answers["PUT", f"/v1/images/{first}/json"] = exists
        sums["first"] = first
        return Reply.json("", X_Docker_Token=written)

    host.answers["PUT", "/v1/repositories/team/app/"] = prepare
    where = remote(host)
    pushed = [
        backend.push_layer(remote=where, image=image, layer=one, tell=lambda sent: None)
        for one in image.layers
    ]
    backend.push_image(remote=where, image=image, layers=pushed, tag="v1")
    backend.close(remote=where)
    assert f"PUT /v1/images/{sums['first']}/layer" not in host.paths()
    assert [row.state for row in pushed] == ["pushed", "pushed"]
    announced = json.loads(host.seen[1][3])
    assert announced[-1]["Tag"] == "v1"
    assert len(announced) == 3
    top = announced[-1]["id"]
    (checksum,) = host.header(f"/v1/images/{top}/checksum", "X-Docker-Checksum-Payload")
    body = next(b for m, p, _, b in host.seen if (m, p) == ("PUT", f"/v1/images/{top}/json"))
    content = next(b for m, p, _, b in host.seen if (m, p) == ("PUT", f"/v1/images/{top}/layer"))
    assert checksum == payload(body, content)
    (by_files,) = host.header(f"/v1/images/{top}/checksum", "X-Docker-Checksum")
    assert str(by_files).startswith("tarsum+sha256:")
    assert host.paths()[-2:] == [
        "PUT /v1/repositories/team/app/tags/v1",
        "PUT /v1/repositories/team/app/images",
    ]
    assert host.seen[-1][3] == b"[]"
