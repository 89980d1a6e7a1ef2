"""The protocols of 2014, header by header as their clients look at them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from lading.testing.images import made_layer

BASE, TOP = "a" * 64, "b" * 64
REPOSITORY = "/v1/repositories/team/app"


def document(image: str, parent: str = "", **more: Any) -> bytes:
    found = {"id": image, "created": "2014-05-01T00:00:00Z", **more}
    return json.dumps({**found, "parent": parent} if parent else found).encode()


def layer(name: str = "file", content: bytes = b"content") -> bytes:
    return gzip.compress(made_layer({name: content}), mtime=0)


def payload(body: bytes, content: bytes) -> str:
    found = hashlib.sha256(body + b"\n" + content)
    return f"sha256:{found.hexdigest()}"


def push_image(
    site: Any, image: str, parent: str = "", content: bytes | None = None, **auth: str
) -> None:
    body, content = document(image, parent), layer(image[:3]) if content is None else content
    assert site("PUT", f"/v1/images/{image}/json", body, **auth).status == 200
    assert site("PUT", f"/v1/images/{image}/layer", content, **auth).json is True
    checksum = payload(body, content)
    done = site(
        "PUT", f"/v1/images/{image}/checksum", b"", X_Docker_Checksum_Payload=checksum, **auth
    )
    assert (done.status, done.json) == (200, True)


def push(site: Any, tag: str = "latest", **auth: str) -> None:
    rows = [{"id": BASE}, {"id": TOP, "Tag": tag}]
    assert site("PUT", f"{REPOSITORY}/", rows, X_Docker_Token="true", **auth).status == 200
    push_image(site, BASE)
    push_image(site, TOP, BASE)
    assert site("PUT", f"{REPOSITORY}/tags/{tag}", TOP).json is True
    assert site("PUT", f"{REPOSITORY}/images", b"[]", X_Docker_Token="true").status == 204


# -- index


@pytest.mark.parametrize("path", ["/v1/_ping", "/_ping"])
def test_ping(site: Any, path: str) -> None:
    answer = site("GET", path)
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["x-docker-registry-standalone"] == "True"
    assert "x-docker-registry-version" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers["expires"] == "-1"


def test_put_repository_hands_out_token_and_endpoints(site: Any) -> None:
    answer = site("PUT", f"{REPOSITORY}/", [{"id": BASE}], X_Docker_Token="true")
    assert (answer.status, answer.json) == (200, "")
    token = answer.headers["x-docker-token"]
    assert token.startswith("Token signature=")
    assert token.endswith(',repository="team/app",access=write')
    assert answer.headers["www-authenticate"] == token
    assert answer.headers["x-docker-endpoints"] == site.host


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Error Decoding JSON"),
        (b"{", "Error Decoding JSON"),
        (b"{}", "Invalid data"),
        (b'[{"id": "x"}]', "Invalid data"),
    ],
)
def test_put_repository_of_nonsense(site: Any, body: bytes, text: str) -> None:
    answer = site("PUT", f"{REPOSITORY}/", body)
    assert (answer.status, answer.json) == (400, {"error": text})


def test_forms_are_not_json(site: Any) -> None:
    kind = "application/x-www-form-urlencoded"
    answer = site("PUT", f"{REPOSITORY}/", b"[]", Content_Type=kind)
    assert (answer.status, answer.json) == (400, {"error": "Error Decoding JSON"})


def test_images_of_a_repository(site: Any) -> None:
    unknown = site("GET", f"{REPOSITORY}/images")
    assert (unknown.status, unknown.json) == (404, {"error": "images not found"})
    push(site)
    answer = site("GET", f"{REPOSITORY}/images", X_Docker_Token="true")
    assert (answer.status, answer.json) == (200, [{"id": BASE}, {"id": TOP, "Tag": "latest"}])
    assert 'repository="team/app",access=read' in answer.headers["x-docker-token"]
    assert answer.headers["x-docker-endpoints"] == site.host


def test_images_are_merged(site: Any) -> None:
    site("PUT", f"{REPOSITORY}/", [{"id": BASE, "checksum": "one"}])
    site("PUT", f"{REPOSITORY}/images", [{"id": BASE, "checksum": "two"}, {"id": TOP}])
    site("PUT", f"{REPOSITORY}/images", [])
    assert site("GET", f"{REPOSITORY}/images").json == [
        {"id": BASE, "checksum": "one"},
        {"id": TOP},
    ]


def test_slash_forms(site: Any) -> None:
    for method in ("PUT", "DELETE"):
        answer = site(method, REPOSITORY, b"[]")
        assert (answer.status, answer.headers["location"]) == (301, f"{REPOSITORY}/")
    assert site("GET", "/v1/users").status == 301
    assert site("GET", "/v1/nothing").status == 404
    assert site("GET", "/v1/nothing").headers["content-type"].startswith("text/html")


def test_names_of_one_part_are_in_the_library(site: Any) -> None:
    answer = site("PUT", "/v1/repositories/foo/", [{"id": BASE}])
    assert 'repository="library/foo"' in answer.headers["x-docker-token"]
    push_image(site, BASE)
    site("PUT", "/v1/repositories/foo/tags/latest", BASE)
    assert site("GET", "/v1/repositories/library/foo/tags").json == {"latest": BASE}
    assert site("GET", "/v1/repositories/foo/images").json == [{"id": BASE}]


def test_delete_images_does_nothing(site: Any) -> None:
    push(site)
    answer = site("DELETE", f"{REPOSITORY}/images")
    assert (answer.status, answer.body) == (204, b"")
    assert "access=delete" in answer.headers["x-docker-token"]
    assert len(site("GET", f"{REPOSITORY}/images").json) == 2


@pytest.mark.parametrize("path", [f"{REPOSITORY}/", f"{REPOSITORY}/tags"])
def test_delete_repository(site: Any, path: str) -> None:
    push(site)
    assert site("DELETE", path).json is True
    assert site("GET", f"{REPOSITORY}/tags").json == {"error": "Repository not found"}
    assert site("DELETE", path).status == 404
    assert site("GET", f"/v1/images/{TOP}/json").status == 200
    assert site("GET", "/v1/search?q=app").json["results"] == []


def test_repository_auth(site: Any) -> None:
    assert site("PUT", f"{REPOSITORY}/auth", b"").json == "OK"


def test_users_alone(site: Any) -> None:
    assert site("GET", "/v1/users/").json == "OK"
    made = site("POST", "/v1/users/", {"username": "u", "password": "p", "email": "e"})
    assert (made.status, made.json) == (201, "User Created")
    bad = site("POST", "/v1/users/", b"x")
    assert (bad.status, bad.json) == (400, {"error": "Error Decoding JSON"})
    assert site("PUT", "/v1/users/u/", {}).status == 204


# -- tags


def test_tags(site: Any) -> None:
    assert site("GET", f"{REPOSITORY}/tags").json == {"error": "Repository not found"}
    push(site, "v1")
    assert site("GET", f"{REPOSITORY}/tags").json == {"v1": TOP}
    assert site("GET", f"{REPOSITORY}/tags/v1").json == TOP
    missing = site("GET", f"{REPOSITORY}/tags/no")
    assert (missing.status, missing.json) == (404, {"error": "Tag not found"})
    assert site("DELETE", f"{REPOSITORY}/tags/v1").json is True
    again = site("DELETE", f"{REPOSITORY}/tags/v1")
    assert (again.status, again.json) == (404, {"error": "Tag not found: v1"})
    assert site("GET", f"{REPOSITORY}/tags").json == {}


def test_bad_tags(site: Any) -> None:
    push(site)
    no_text = site("PUT", f"{REPOSITORY}/tags/x", [TOP])
    assert (no_text.status, no_text.json) == (400, {"error": "Invalid data"})
    unknown = site("PUT", f"{REPOSITORY}/tags/x", "c" * 64)
    assert (unknown.status, unknown.json) == (404, {"error": "Image not found"})
    assert site("PUT", f"{REPOSITORY}/tags/-bad", TOP).status == 400


def test_tag_before_the_image_is_complete(site: Any) -> None:
    site("PUT", f"{REPOSITORY}/", [{"id": BASE}])
    site("PUT", f"/v1/images/{BASE}/json", document(BASE))
    assert site("PUT", f"{REPOSITORY}/tags/soon", BASE).json is True
    assert site("GET", "/v2/team/app/manifests/soon").status == 404
    assert site("GET", "/v2/team/app/tags/list").json["tags"] == []


def test_who_pushed(site: Any) -> None:
    agent = "docker/1.0.0 go/go1.2.1 git-commit/63fe64c kernel/3.13.0 os/linux arch/amd64"
    push(site, "v1")
    site("PUT", f"{REPOSITORY}/tags/v2", TOP, User_Agent=agent)
    found = site("GET", f"{REPOSITORY}/tags/v2/json").json
    assert isinstance(found.pop("last_update"), int)
    assert found == {
        "docker_version": "1.0.0",
        "docker_go_version": "go1.2.1",
        "arch": "amd64",
        "os": "linux",
        "kernel": "3.13.0",
    }
    assert set(site("GET", f"{REPOSITORY}/json").json.values()) == {None}


def test_properties(site: Any) -> None:
    push(site)
    assert site("GET", f"{REPOSITORY}/properties").json == {"access": "public"}
    assert site("PUT", f"{REPOSITORY}/properties", {"access": "private"}).status == 200
    assert site("GET", f"{REPOSITORY}/properties").json == {"access": "private"}
    bad = site("PUT", f"{REPOSITORY}/properties", {"access": "some"})
    assert (bad.status, bad.json) == (400, {"error": "Invalid data"})


def test_search(site: Any) -> None:
    push(site)
    found = site("GET", "/v1/search?q=eam").json
    assert (found["query"], found["num_results"]) == ("eam", 1)
    assert found["results"][0]["name"] == "team/app"
    assert site("GET", "/v1/search?q=").json["num_results"] == 1
    assert site("GET", "/v1/search?q=p").json["num_results"] == 1
    assert site("GET", "/v1/search?q=%25").json["num_results"] == 0
    assert site("GET", "/v1/search?q=nothing").json["results"] == []
    assert site("GET", '/v1/search?q=%22team%22%20OR%20"x').json["num_results"] == 0


# -- images


def test_document_comes_back_byte_for_byte(site: Any) -> None:
    push(site)
    answer = site("GET", f"/v1/images/{TOP}/json")
    assert answer.body == document(TOP, BASE)
    assert answer.headers["x-docker-size"] == str(len(layer(TOP[:3])))
    expected = payload(document(TOP, BASE), layer(TOP[:3]))
    assert answer.headers["x-docker-checksum-payload"] == expected
    assert answer.headers["cache-control"] == "public, max-age=31536000"
    assert answer.headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_ancestry(site: Any) -> None:
    push(site)
    assert site("GET", f"/v1/images/{TOP}/ancestry").json == [TOP, BASE]
    assert site("GET", f"/v1/images/{BASE}/ancestry").json == [BASE]


@pytest.mark.parametrize("kind", ["json", "ancestry", "layer", "files"])
def test_unknown_images(site: Any, kind: str) -> None:
    unknown = site("GET", f"/v1/images/{TOP}/{kind}")
    assert (unknown.status, unknown.json) == (404, {"error": "Image not found"})
    upper = site("GET", f"/v1/images/{TOP.upper()}/{kind}")
    assert (upper.status, upper.json) == (404, {"error": "Invalid image ID"})
    # The test for changes comes first.
    cached = site("GET", f"/v1/images/{TOP}/{kind}", If_Modified_Since="x")
    assert (cached.status, cached.body) == (304, b"")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "Invalid JSON"),
        (b"{}", "Missing key `id' in JSON"),
        (document(BASE), "JSON data contains invalid id"),
        (document(TOP, BASE), "Image depends on a non existing parent"),
    ],
)
def test_documents_that_are_refused(site: Any, body: bytes, text: str) -> None:
    answer = site("PUT", f"/v1/images/{TOP}/json", body)
    assert (answer.status, answer.json) == (400, {"error": text})


def test_states_of_an_upload(site: Any) -> None:
    path, body, content = f"/v1/images/{BASE}", document(BASE), layer()
    early = site("PUT", f"{path}/layer", content)
    assert (early.status, early.json) == (404, {"error": "Image not found"})
    for _ in range(2):
        assert site("PUT", f"{path}/json", body).json is True
    for kind in ("json", "ancestry", "layer"):
        answer = site("GET", f"{path}/{kind}")
        expected = {"error": "Image is being uploaded, retry later"}
        assert (answer.status, answer.json) == (400, expected)
    for _ in range(2):
        assert site("PUT", f"{path}/layer", content).json is True
    none = site("PUT", f"{path}/checksum", b"", X_Docker_Checksum="tarsum+sha256:0")
    assert none.status == 412
    empty = site("PUT", f"{path}/checksum", b"", X_Docker_Checksum_Payload="")
    assert (empty.status, empty.json) == (400, {"error": "Missing Image's checksum"})
    wrong = site("PUT", f"{path}/checksum", b"", X_Docker_Checksum_Payload="sha256:0")
    assert (wrong.status, wrong.json) == (400, {"error": "Checksum mismatch"})
    right = payload(body, content)
    assert site("PUT", f"{path}/checksum", b"", X_Docker_Checksum_Payload=right).json is True
    again = site("PUT", f"{path}/checksum", b"", X_Docker_Checksum_Payload=right)
    assert (again.status, again.json) == (409, {"error": "Cannot set this image checksum"})
    for kind, what in (("json", body), ("layer", content)):
        answer = site("PUT", f"{path}/{kind}", what)
        assert (answer.status, answer.json) == (409, {"error": "Image already exists"})
    other = site("PUT", f"/v1/images/{TOP}/checksum", b"", X_Docker_Checksum_Payload=right)
    assert (other.status, other.json) == (404, {"error": "Image not found"})


def test_layer(site: Any) -> None:
    push(site)
    content = layer(TOP[:3])
    answer = site("GET", f"/v1/images/{TOP}/layer")
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"
    head = site("HEAD", f"/v1/images/{TOP}/layer")
    assert (head.status, head.headers["content-length"]) == (200, str(len(content)))


def test_layer_is_resumed_as_clients_of_2014_do(site: Any) -> None:
    push(site)
    content = layer(TOP[:3])
    size = len(content)
    part = site("GET", f"/v1/images/{TOP}/layer", Range=f"bytes=10-{size}")
    assert (part.status, part.body) == (206, content[10:])
    assert part.headers["content-length"] == str(size - 10)
    assert part.headers["content-range"] == f"bytes 10-{size - 1}/{size}"
    end = site("GET", f"/v1/images/{TOP}/layer", Range=f"bytes={size}-{size}")
    assert (end.status, end.headers["content-length"], end.body) == (416, "0", b"")
    for odd in ("bytes=-5", "chars=1-2", "bytes=5-2"):
        assert site("GET", f"/v1/images/{TOP}/layer", Range=odd).body == content


def test_files(site: Any) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (
            ("dir", tarfile.DIRTYPE),
            ("dir/f", tarfile.REGTYPE),
            ("dir/.wh.old", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mtime, entry.mode, entry.uid = kind, 1_400_000_000, 0o600, 7
            tar.addfile(entry)
    site("PUT", f"{REPOSITORY}/", [{"id": BASE}])
    push_image(site, BASE, content=gzip.compress(out.getvalue()))
    rows = site("GET", f"/v1/images/{BASE}/files").json
    assert rows == [
        ["/dir", "d", False, 0, 1_400_000_000, 0o600, 7, 0],
        ["/dir/f", "f", False, 0, 1_400_000_000, 0o600, 7, 0],
        ["/dir/old", "f", True, 0, 1_400_000_000, 0o600, 7, 0],
    ]
    diff = site("GET", f"/v1/images/{BASE}/diff")
    assert (diff.status, diff.json) == (400, {"error": "Diff queue is disabled"})


# -- to today's protocol and back


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("docker/1.5.0 go/go1.3.3 git-commit/a8a31ef kernel/3.13.0 os/linux arch/amd64", 404),
        ("docker/1.9.1 go/go1.4.2", 404),
        ("docker/1.10.3 go/go1.5.3", 200),
        ("docker/20.10.24+dfsg1 go/go1.19.8", 200),
        ("Go-http-client/1.1", 200),
    ],
)
def test_docker_before_schema_2_is_led_to_v1(site: Any, agent: str, status: int) -> None:
    answer = site("GET", "/v2/", User_Agent=agent)
    assert answer.status == status
    assert ("docker-distribution-api-version" in answer.headers) == (status == 200)


def test_pushed_by_v1_and_pulled_by_v2(site: Any) -> None:
    push(site, "v1")
    assert site("GET", "/v2/team/app/tags/list").json["tags"] == ["v1"]
    answer = site("GET", "/v2/team/app/manifests/v1")
    manifest = answer.json
    config = site("GET", f"/v2/team/app/blobs/{manifest['config']['digest']}").json
    layers = [site("GET", f"/v2/team/app/blobs/{row['digest']}").body for row in manifest["layers"]]
    assert layers == [layer(BASE[:3]), layer(TOP[:3])]
    assert config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}" for content in layers
    ]
    digest = answer.headers["docker-content-digest"]
    assert site("GET", f"/v2/team/app/manifests/{digest}").body == answer.body


@pytest.mark.parametrize("content", [gzip.compress(b""), b"", gzip.compress(bytes(1024))])
def test_empty_layers_of_the_time(site: Any, content: bytes) -> None:
    site("PUT", f"{REPOSITORY}/", [{"id": BASE}])
    push_image(site, BASE, content=content)
    site("PUT", f"{REPOSITORY}/tags/v1", BASE)
    assert site("GET", f"/v1/images/{BASE}/layer").body == content
    manifest = site("GET", "/v2/team/app/manifests/v1").json
    (row,) = manifest["layers"]
    assert site("GET", f"/v2/team/app/blobs/{row['digest']}").body == content


def test_damaged_layer_has_no_manifest(site: Any) -> None:
    site("PUT", f"{REPOSITORY}/", [{"id": BASE}])
    push_image(site, BASE, content=b"\x1f\x8b damaged")
    site("PUT", f"{REPOSITORY}/tags/v1", BASE)
    assert site("GET", "/v2/team/app/manifests/v1").status == 404
    assert site("GET", "/v2/team/app/tags/list").json["tags"] == []


# -- with users


def test_login(start: Callable[..., Any]) -> None:
    site = start(users=("me",), signup=True)
    known = {"username": "me", "password": "x", "email": ""}
    taken = site("POST", "/v1/users/", known)
    assert (taken.status, taken.json) == (400, "Username or email already exists")
    assert site("GET", "/v1/users/", user="me:me-word").json == "OK"
    wrong = site("GET", "/v1/users/", user="me:other")
    assert wrong.status == 401
    assert wrong.headers["www-authenticate"] == 'Basic realm="auth required", Token'
    fresh = {"username": "fresh", "password": "long enough", "email": ""}
    assert site("POST", "/v1/users/", fresh).status == 201
    assert site("GET", "/v1/users/", user="fresh:long enough").status == 200
    short = {"username": "other", "password": "x", "email": ""}
    assert site("POST", "/v1/users/", short).status == 400
    changed = site("PUT", "/v1/users/me/", {"password": "changed"}, user="me:me-word")
    assert changed.status == 204
    assert site("GET", "/v1/users/", user="me:changed").status == 200
    assert site("PUT", "/v1/users/fresh/", {"password": "stolen"}, user="me:changed").status == 401


def test_no_signup_unless_allowed(start: Callable[..., Any]) -> None:
    site = start(users=("me",))
    answer = site("POST", "/v1/users/", {"username": "new", "password": "long enough"})
    assert answer.status == 401


def test_push_by_token(start: Callable[..., Any]) -> None:
    site = start(users=("team", "other"))
    refused = site("PUT", f"{REPOSITORY}/", [{"id": BASE}])
    assert refused.status == 401
    assert site("PUT", f"{REPOSITORY}/", [{"id": BASE}], user="other:other-word").status == 403
    begun = site("PUT", f"{REPOSITORY}/", [{"id": BASE}], user="team:team-word")
    token = begun.headers["x-docker-token"]
    # What the programs of the time send has the scheme twice.
    for form in (token, f"Token {token}"):
        path = f"/v1/images/{TOP}/json"
        foreign = site("PUT", path, document(TOP), Authorization=form)
        expected = {"error": "This image does not belong to the repository"}
        assert (foreign.status, foreign.json) == (400, expected)
    push_image(site, BASE, Authorization=f"Token {token}")
    assert site("PUT", f"{REPOSITORY}/tags/v1", BASE, Authorization=token).status == 200
    assert site("GET", f"/v1/images/{BASE}/json", Authorization=token).status == 200
    assert site("PUT", f"{REPOSITORY}/images", b"[]", Authorization=token).status == 204


def test_tokens_are_for_one_thing(start: Callable[..., Any]) -> None:
    site = start(users=("team",))
    auth = {"user": "team:team-word"}
    site("PUT", f"{REPOSITORY}/", [{"id": BASE}], **auth)
    token = site("GET", f"{REPOSITORY}/images", **auth).headers["x-docker-token"]
    assert site("PUT", f"{REPOSITORY}/tags/x", BASE, Authorization=token).status == 401
    forged = token.replace("access=read", "access=write")
    assert site("PUT", f"{REPOSITORY}/tags/x", BASE, Authorization=forged).status == 401
    broken = token.replace("signature=", "signature=A")
    assert site("GET", f"{REPOSITORY}/tags", Authorization=broken).status == 401


def test_private_repositories(start: Callable[..., Any]) -> None:
    site = start(users=("team", "other"))
    begun = site("PUT", f"{REPOSITORY}/", [{"id": BASE}], user="team:team-word")
    token = begun.headers["x-docker-token"]
    push_image(site, BASE, Authorization=token)
    site("PUT", f"{REPOSITORY}/tags/v1", BASE, Authorization=token)
    for kind in ("json", "layer", "ancestry"):
        assert site("GET", f"/v1/images/{BASE}/{kind}").status == 200
    private = {"access": "private"}
    assert site("PUT", f"{REPOSITORY}/properties", private, Authorization=token).status == 200
    for kind in ("json", "layer", "ancestry"):
        assert site("GET", f"/v1/images/{BASE}/{kind}").status == 401
        assert site("GET", f"/v1/images/{BASE}/{kind}", user="other:other-word").status == 401
        assert site("GET", f"/v1/images/{BASE}/{kind}", user="team:team-word").status == 200
    assert site("GET", f"{REPOSITORY}/images").status == 401
    assert site("GET", "/v1/search?q=app").json["results"] == []
    found = site("GET", "/v1/search?q=app", user="team:team-word").json["results"]
    assert [row["name"] for row in found] == ["team/app"]
    child = site("PUT", "/v1/repositories/other/x/", [{"id": TOP}], user="other:other-word")
    stolen = site(
        "PUT",
        f"/v1/images/{TOP}/json",
        document(TOP, BASE),
        Authorization=child.headers["x-docker-token"],
    )
    assert stolen.json == {"error": "Image depends on an unauthorized parent"}
