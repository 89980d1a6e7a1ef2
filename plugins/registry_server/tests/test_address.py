"""The registry behind a reverse proxy: what it tells clients to come back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lading.errors import Invalid
from lading_registry_server.address import Address

FORWARDED = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "hub.example"}


def told(site: Any, **headers: str) -> tuple[str, str]:
    """Where passwords are to be sent, and where layers of 2014 are."""
    challenge = site("GET", "/v2/", **headers).headers["www-authenticate"]
    begun = site("PUT", "/v1/repositories/me/x/", [], user="me:me-word", **headers)
    realm = challenge.split('realm="')[1].split('"')[0]
    return realm, begun.headers["x-docker-endpoints"]


def test_nobody_is_believed_unless_he_was_named(start: Callable[..., Any]) -> None:
    for number, proxies in enumerate([(), ("10.0.0.0/8",)]):
        site = start(f"r{number}", users=("me",), proxies=proxies)
        own = (f"http://{site.host}/auth/token", site.host)
        assert told(site, **FORWARDED) == own


def test_a_trusted_proxy_is(start: Callable[..., Any]) -> None:
    site = start(users=("me",), proxies=("10.0.0.0/8", "127.0.0.1"))
    assert told(site, **FORWARDED) == ("https://hub.example/auth/token", "hub.example")
    # What comes before the last value may be the client's own.
    chained = {"X_Forwarded_Proto": "http, https", "X_Forwarded_Host": "evil.example, hub.example"}
    assert told(site, **chained) == ("https://hub.example/auth/token", "hub.example")
    for odd in ({"X_Forwarded_Host": 'x"/'}, {"X_Forwarded_Proto": "javascript"}):
        assert told(site, **odd) == (f"http://{site.host}/auth/token", site.host)


def test_an_external_url_is_said_once_for_all(start: Callable[..., Any]) -> None:
    site = start(users=("me",), url="https://hub.example/", proxies=("127.0.0.1",))
    other = {"X_Forwarded_Host": "other.example"}
    assert told(site, **other) == ("https://hub.example/auth/token", "hub.example")
    site("PUT", "/v1/repositories/me/shown/", [], user="me:me-word")
    # Forms come from the page that browsers have seen.
    star = {"body": b"star=1", "user": "me:me-word"}
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    assert site("POST", "/r/me/shown", Origin="https://hub.example", **kind, **star).status == 303
    assert site("POST", "/r/me/shown", Origin=f"http://{site.host}", **kind, **star).status == 403


@pytest.mark.parametrize("url", ["hub.example", "ftp://x", "https://x/below", "https://"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Invalid, match="external URL"):
        Address("http", url=url)


def test_proxies_that_are_none() -> None:
    with pytest.raises(Invalid, match="trusted proxy"):
        Address("http", proxies=("proxy.example",))
