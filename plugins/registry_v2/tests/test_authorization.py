"""Challenges and what answers them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lading.errors import Denied, Invalid, Unauthorized
from lading.hooks.registry import Credentials, Remote
from lading_registry_v2.authorization import Authorizations, parse_challenges

ME = Credentials("me", "secret")
BEARER = 'Bearer realm="https://auth.example/token",service="reg"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", {}),
        ('Basic realm="x"', {"basic": {"realm": "x"}}),
        ('Bearer realm="a",service="b, c"', {"bearer": {"realm": "a", "service": "b, c"}}),
        (
            'Bearer realm="a",scope="repository:x:pull,push", Basic realm="b"',
            {
                "bearer": {"realm": "a", "scope": "repository:x:pull,push"},
                "basic": {"realm": "b"},
            },
        ),
        ("Basic realm=plain", {"basic": {"realm": "plain"}}),
        ('Basic realm="a, Bearer realm=b"', {"basic": {"realm": "a, Bearer realm=b"}}),
        ("Negotiate, Basic realm=x", {"negotiate": {}, "basic": {"realm": "x"}}),
    ],
)
def test_challenges(header: str, expected: dict[str, dict[str, str]]) -> None:
    assert parse_challenges(header) == expected


class Answer:
    def __init__(self, status: int, body: object) -> None:
        self.status, self.data = status, json.dumps(body).encode()


class Pool:
    """Answers as a token server does, and remembers what it was asked."""

    def __init__(self, status: int = 200, **body: object) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self._answer = Answer(status, body)

    def request(self, method: str, url: str, **options: Any) -> Answer:
        self.asked.append((method, url, options))
        return self._answer


def authorizations(pool: Pool, credentials: Credentials | None = ME, **more: Any) -> Authorizations:
    return Authorizations(Remote("reg", credentials=credentials, **more), pool)  # type: ignore[arg-type]


def test_basic() -> None:
    found = authorizations(Pool())
    assert found.answer('Basic realm="x"', "s") == "Basic bWU6c2VjcmV0"
    assert found.known("s") == "Basic bWU6c2VjcmV0"
    found.forget("s")
    assert found.known("s") == ""
    assert authorizations(Pool(), None).answer('Basic realm="x"', "s") == ""


def test_a_token_is_asked_for_once() -> None:
    pool = Pool(token="t", expires_in=300)
    found = authorizations(pool)
    scope = "repository:a:pull,push repository:b:pull"
    for _ in range(2):
        assert found.answer(BEARER, scope) == "Bearer t"
    ((method, url, options),) = pool.asked
    assert (method, options["headers"]) == ("GET", {"Authorization": "Basic bWU6c2VjcmV0"})
    assert url == (
        "https://auth.example/token?service=reg"
        "&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull"
    )


def test_without_credentials_it_is_asked_for_too() -> None:
    pool = Pool(access_token="t")
    assert authorizations(pool, None).answer(BEARER, "s") == "Bearer t"
    assert pool.asked[0][2]["headers"] == {}


def test_an_identity_token_stands_for_the_password() -> None:
    pool = Pool(access_token="t")
    found = authorizations(pool, Credentials(identity_token="id"))
    assert found.answer(BEARER, "s") == "Bearer t"
    method, _, options = pool.asked[0]
    assert method == "POST"
    assert b"grant_type=refresh_token" in options["body"]
    assert b"refresh_token=id" in options["body"]


def test_a_login_asks_for_a_token_that_stands_for_the_password() -> None:
    pool = Pool(token="t", refresh_token="id")
    remote = Remote("reg", credentials=ME)
    found = Authorizations(remote, pool, offline=True)  # type: ignore[arg-type]
    assert found.answer(BEARER, "") == "Bearer t"
    assert found.refresh_token == "id"
    method, url, _ = pool.asked[0]
    assert method == "GET"
    assert url.endswith("?service=reg&client_id=lading&offline_token=true")


@pytest.mark.parametrize("offline", [False, True])
def test_a_token_server_that_knows_only_forms(offline: bool) -> None:
    class OnlyForms(Pool):
        def request(self, method: str, url: str, **options: Any) -> Answer:
            found = super().request(method, url, **options)
            return found if method == "POST" else Answer(405, {})

    pool = OnlyForms(access_token="t", refresh_token="id")
    found = Authorizations(Remote("reg", credentials=ME), pool, offline=offline)  # type: ignore[arg-type]
    assert found.answer(BEARER, "repository:a:pull") == "Bearer t"
    body = pool.asked[1][2]["body"].decode()
    assert "grant_type=password&username=me&password=secret" in body
    assert f"access_type={'offline' if offline else 'online'}&service=reg" in body
    assert "scope=repository%3Aa%3Apull" in body


def test_passwords_do_not_travel_in_the_clear() -> None:
    challenge = 'Bearer realm="http://auth.example/token"'
    with pytest.raises(Denied, match="in the clear"):
        authorizations(Pool(token="t")).answer(challenge, "s")
    assert authorizations(Pool(token="t"), insecure=True).answer(challenge, "s") == "Bearer t"


@pytest.mark.parametrize(
    ("pool", "challenge", "kind"),
    [
        (Pool(401), BEARER, Unauthorized),
        (Pool(200), BEARER, Invalid),
        (Pool(200, token=5), BEARER, Invalid),
        (Pool(200, token="t"), "Bearer x=y", Invalid),
        (Pool(200, token="t"), 'Bearer realm="file:///etc/passwd"', Invalid),
    ],
)
def test_bad_answers(pool: Pool, challenge: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        authorizations(pool).answer(challenge, "s")


def test_unknown_schemes_have_no_answer() -> None:
    assert authorizations(Pool()).answer("Negotiate", "s") == ""
