"""Users, tokens and rights in the distribution API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lading.errors import Conflict, Invalid, NotFound
from lading.model import oci
from lading_registry_server.tokens import Tokens
from lading_registry_server.users import Users

EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of "{}"
MANIFEST = (
    b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",'
    b'"digest":"%s","size":2},"layers":[]}' % EMPTY.encode()
)


@pytest.fixture
def site(start: Callable[..., Any]) -> Any:
    return start(users=("me", "you", "admin"))


def push(site: Any, name: str, **auth: str) -> int:
    begun = site("POST", f"/v2/{name}/blobs/uploads/?digest={EMPTY}", b"{}", **auth)
    if begun.status != 201:
        return int(begun.status)
    path = f"/v2/{name}/manifests/v1"
    return int(site("PUT", path, MANIFEST, Content_Type=oci.MANIFEST, **auth).status)


def token(site: Any, *scopes: str, user: str = "") -> str:
    query = urlencode([("service", site.host), *(("scope", scope) for scope in scopes)])
    answer = site("GET", f"/auth/token?{query}", user=user)
    assert answer.status == 200, answer
    assert answer.json["token"] == answer.json["access_token"]
    assert answer.json["expires_in"] >= 60
    return f"Bearer {answer.json['token']}"


def test_the_base_tells_how_to_log_in(site: Any) -> None:
    answer = site("GET", "/v2/")
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == (
        f'Bearer realm="http://{site.host}/auth/token",service="{site.host}"'
    )
    assert site("GET", "/v2/", user="me:me-word").status == 200
    assert site("GET", "/v2/", user="me:wrong").status == 401
    assert site("GET", "/v2/", Authorization=token(site, user="me:me-word")).status == 200


def test_push_needs_a_login(site: Any) -> None:
    answer = site("POST", "/v2/me/app/blobs/uploads/")
    assert answer.status == 401
    scope = 'scope="repository:me/app:pull,push"'
    assert scope in answer.headers["www-authenticate"]
    assert push(site, "me/app", user="me:me-word") == 201
    bearer = token(site, "repository:me/app:pull,push", user="me:me-word")
    assert push(site, "me/app", Authorization=bearer) == 201


def test_namespaces_belong_to_their_users(site: Any) -> None:
    assert push(site, "you/app", user="me:me-word") == 403
    assert push(site, "you/app", user="admin:admin-word") == 201
    assert push(site, "team/app", user="me:me-word") == 201
    assert push(site, "team/app", user="you:you-word") == 403
    assert push(site, "app", user="you:you-word") == 201
    assert push(site, "app", user="me:me-word") == 403


def test_everybody_pulls_what_is_public(site: Any) -> None:
    push(site, "me/app", user="me:me-word")
    assert site("GET", "/v2/me/app/manifests/v1").status == 200
    bearer = token(site, "repository:me/app:pull")
    assert site("GET", "/v2/me/app/manifests/v1", Authorization=bearer).status == 200
    assert push(site, "me/app", Authorization=bearer) == 401


def test_private_is_private(site: Any) -> None:
    push(site, "me/app", user="me:me-word")
    properties = "/v1/repositories/me/app/properties"
    site("PUT", properties, {"access": "private"}, user="me:me-word")
    for path in ("manifests/v1", f"blobs/{EMPTY}", "tags/list"):
        assert site("GET", f"/v2/me/app/{path}").status == 401
        assert site("GET", f"/v2/me/app/{path}", user="you:you-word").status == 403
        assert site("GET", f"/v2/me/app/{path}", user="me:me-word").status == 200
        assert site("GET", f"/v2/me/app/{path}", user="admin:admin-word").status == 200
    bearer = token(site, "repository:me/app:pull", user="you:you-word")
    assert site("GET", "/v2/me/app/manifests/v1", Authorization=bearer).status == 403
    mount = f"/v2/you/app/blobs/uploads/?mount={EMPTY}&from=me/app"
    assert site("POST", mount, user="you:you-word").status == 202
    catalog = token(site, "registry:catalog:*", user="you:you-word")
    assert site("GET", "/v2/_catalog", Authorization=catalog).json == {"repositories": []}
    assert site("GET", "/v2/_catalog", user="me:me-word").json == {"repositories": ["me/app"]}
    assert b"me/app" not in site("GET", "/?q=app").body
    assert site("GET", "/r/me/app").status == 404
    assert b"me/app" in site("GET", "/?q=app", user="me:me-word").body


def test_tokens_allow_what_they_say(site: Any) -> None:
    push(site, "me/app", user="me:me-word")
    pull = token(site, "repository:me/app:pull", user="me:me-word")
    assert push(site, "me/app", Authorization=pull) == 401 or pytest.fail("a pull token pushed")
    other = token(site, "repository:me/other:pull,push", user="me:me-word")
    assert push(site, "me/app", Authorization=other) in (401, 403)
    asked = token(site, "repository:you/app:pull,push", user="me:me-word")
    assert push(site, "you/app", Authorization=asked) == 403
    both = token(site, "repository:me/app:pull repository:me/new:pull,push", user="me:me-word")
    mount = f"/v2/me/new/blobs/uploads/?mount={EMPTY}&from=me/app"
    assert site("POST", mount, Authorization=both).status == 201


def test_delete_is_the_owners(site: Any) -> None:
    push(site, "me/app", user="me:me-word")
    assert site("DELETE", "/v2/me/app/manifests/v1").status == 401
    assert site("DELETE", "/v2/me/app/manifests/v1", user="you:you-word").status == 403
    assert site("DELETE", "/v2/me/app/manifests/v1", user="me:me-word").status == 202


def test_wrong_passwords_get_no_token(site: Any) -> None:
    answer = site("GET", "/auth/token?scope=repository:me/app:pull", user="me:wrong")
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    for bearer in ("Bearer nonsense", "Bearer a.b", "Bearer .", "Digest x"):
        assert site("GET", "/v2/", Authorization=bearer).status == 401
    assert site("GET", "/v2/", Authorization="Basic %%%").status == 401


def test_tokens_instead_of_passwords(site: Any) -> None:
    form = {
        "grant_type": "password",
        "username": "me",
        "password": "me-word",
        "access_type": "offline",
        "service": site.host,
    }
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    first = site("POST", "/auth/token", urlencode(form).encode(), **kind)
    assert first.status == 200
    again = {
        "grant_type": "refresh_token",
        "refresh_token": first.json["refresh_token"],
        "scope": "repository:me/app:pull,push",
    }
    second = site("POST", "/auth/token", urlencode(again).encode(), **kind)
    bearer = f"Bearer {second.json['access_token']}"
    assert push(site, "me/app", Authorization=bearer) == 201
    Users(site.root.parent / "users").remove("me")
    assert site("POST", "/auth/token", urlencode(again).encode(), **kind).status == 401
    assert push(site, "me/app", Authorization=bearer) == 401


def test_users_are_read_again_when_the_file_changes(site: Any) -> None:
    assert site("GET", "/v2/", user="new:new-word").status == 401
    Users(site.root.parent / "users").add("new", "new-word")
    assert site("GET", "/v2/", user="new:new-word").status == 200


# -- the parts


def test_users_file(tmp_path: Path) -> None:
    users = Users(tmp_path / "users")
    users.add("me", "my password")
    assert users.verify("me", "my password") == users.get("me")
    for name, password in (("me", "other"), ("you", "my password"), ("me", "")):
        assert users.verify(name, password) is None
    users.add("me", "changed")
    assert users.verify("me", "my password") is None
    assert users.verify("me", "changed") is not None
    text = (tmp_path / "users").read_text()
    assert "changed" not in text
    assert (tmp_path / "users").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict):
        users.add("me", "changed", new=True)
    for name, password in (("Me", "long enough"), ("a:b", "long enough"), ("me", "1234")):
        with pytest.raises(Invalid):
            users.add(name, password)
    users.remove("me")
    with pytest.raises(NotFound):
        users.remove("me")


def test_a_damaged_users_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# comment\n\nme:plain\n")
    with pytest.raises(Invalid, match="line 3"):
        Users(tmp_path / "users").all()


def test_tokens_end(tmp_path: Path) -> None:
    tokens = Tokens.of(tmp_path / "secret")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    made = tokens.make("access", "me", {"a": ["pull"]})
    again = Tokens.of(tmp_path / "secret").read("access", made)
    assert again is not None
    assert (again.user, again.access) == ("me", {"a": ["pull"]})
    assert tokens.read("refresh", made) is None
    assert tokens.read("access", tokens.make("access", "me", lifetime=-1)) is None
    assert Tokens(bytes(32)).read("access", made) is None
