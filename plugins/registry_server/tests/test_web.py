"""The pages, as text and in a real browser."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lading.model import oci
from lading.testing.images import made_image
from lading.testing.waiting import listens, until

EVIL = '<script>document.title="evil"</script>'


def push(site: Any, name: str, tag: str, **auth: str) -> str:
    image = made_image([{"a": b"one"}, {"b": b"two" * 1000}], empty_lines=1)
    rows = []
    for layer in image.layers:
        content = layer.open().read(1 << 20)
        rows.append(oci.Descriptor(oci.LAYER_GZIP, oci.digest_of(content), len(content)))
        path = f"/v2/{name}/blobs/uploads/?digest={oci.digest_of(content)}"
        assert site("POST", path, content, **auth).status == 201
    path = f"/v2/{name}/blobs/uploads/?digest={image.id}"
    assert site("POST", path, image.config, **auth).status == 201
    manifest = oci.docker_manifest(image.config, rows)
    path = f"/v2/{name}/manifests/{tag}"
    done = site("PUT", path, manifest, Content_Type=oci.DOCKER_MANIFEST, **auth)
    assert done.status == 201
    return str(done.headers["docker-content-digest"])


def page(site: Any, path: str, **auth: str) -> str:
    answer = site("GET", path, **auth)
    assert answer.status == 200, answer
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return html.unescape(answer.body.decode())


def form(site: Any, path: str, body: bytes, user: str, origin: str = "") -> int:
    kind = "application/x-www-form-urlencoded"
    where = {"Origin": origin or f"http://{site.host}"}
    return int(site("POST", path, body, user=user, Content_Type=kind, **where).status)


def test_first_page_and_search(site: Any) -> None:
    assert "Nothing here yet" in page(site, "/")
    push(site, "team/web", "1.0")
    push(site, "tools", "latest")
    assert "2 repositories" in page(site, "/")
    found = page(site, "/?q=web")
    assert "team/web" in found
    assert ">tools<" not in found
    assert "0 found for “zzz”" in page(site, "/?q=zzz")


def test_long_lists_have_pages(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading_registry_server.web.MOST_ROWS", 2)
    for number in range(5):
        site("PUT", f"/v1/repositories/team/r{number}/", [])
    shown: list[str] = []
    path = "/?q=team"
    for at in range(1, 4):
        text = site("GET", path).body.decode()
        assert f"Page {at} of 3" in text
        shown += re.findall(r'<h2><a href="/r/(team/r\d)"', text)
        following = re.search(r'<a href="([^"]+)" rel="next"', text)
        path = html.unescape(following[1]) if following else ""
    assert path == ""
    assert sorted(shown) == [f"team/r{number}" for number in range(5)]
    for odd in ("0", "-1", "x", "9" * 30):
        assert "Page 1 of 3" in site("GET", f"/?q=team&page={odd}").body.decode()
    assert "There is no such page" in site("GET", "/?q=team&page=9").body.decode()


def test_repository_and_image(site: Any) -> None:
    digest = push(site, "team/web", "1.0")
    shown = page(site, "/r/team/web")
    assert f"lading pull {site.host}/team/web:1.0" in shown
    assert digest.removeprefix("sha256:")[:12] in shown
    image = page(site, "/r/team/web?tag=1.0")
    for text in ("ADD layer 0", "ENV N=0", "/run", "NAME=ä", "linux/amd64", digest):
        assert text in image
    assert f"lading pull {site.host}/team/web@{digest}" in page(
        site, f"/r/team/web?digest={digest}"
    )


def test_index_lists_its_platforms(site: Any) -> None:
    digest = push(site, "team/web", "amd64")
    platform = {"os": "linux", "architecture": "riscv64"}
    row = {"mediaType": oci.DOCKER_MANIFEST, "digest": digest, "size": 3, "platform": platform}
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [row]}
    site("PUT", "/v2/team/web/manifests/all", body, Content_Type=oci.INDEX)
    assert "linux/riscv64" in page(site, "/r/team/web")
    assert "linux/riscv64" in page(site, "/r/team/web?tag=all")


def test_image_of_2014(site: Any) -> None:
    image = "a" * 64
    site("PUT", "/v1/repositories/team/old/", [{"id": image}])
    site("PUT", f"/v1/images/{image}/json", {"id": image})
    site("PUT", "/v1/repositories/team/old/tags/v1", image)
    assert "v1 (incomplete)" in page(site, "/r/team/old")


@pytest.mark.parametrize("path", ["/r/no/such", "/r/", "/nothing", "/r/../../etc", "/static/../x"])
def test_missing_pages(site: Any, path: str) -> None:
    assert site("GET", path).status == 404


def test_nothing_from_outside_becomes_markup(start: Callable[..., Any]) -> None:
    site = start(users=("me",))
    auth = {"user": "me:me-word"}
    push(site, "me/app", "v1", **auth)
    evil = EVIL.replace(" ", "+").encode()
    assert form(site, "/r/me/app", b"description=" + evil, "me:me-word") == 303
    for path in ("/", "/r/me/app", f"/?q={urllib.request.quote(EVIL)}"):
        text = site("GET", path, **auth).body.decode()
        assert EVIL not in text
        assert "&lt;script&gt;" in text or path == "/"


def test_stars_and_settings(start: Callable[..., Any]) -> None:
    site = start(users=("me", "you"))
    push(site, "me/app", "v1", user="me:me-word")
    assert "Settings" not in page(site, "/r/me/app")
    assert form(site, "/r/me/app", b"star=1", "you:you-word") == 303
    assert form(site, "/r/me/app", b"star=1", "you:you-word") == 303
    assert "★ 1 star " in page(site, "/r/me/app", user="you:you-word")
    assert site("GET", "/v1/search?q=app").json["results"][0]["star_count"] == 1
    assert form(site, "/r/me/app", b"star=0", "you:you-word") == 303
    assert "★ 0 stars" in page(site, "/r/me/app")
    assert form(site, "/r/me/app", b"description=mine", "you:you-word") == 403
    assert form(site, "/r/me/app", b"description=mine&private=1", "me:me-word") == 303
    assert "mine" in page(site, "/r/me/app", user="me:me-word")
    assert site("GET", "/r/me/app").status == 404


def test_forms_of_other_sites_change_nothing(start: Callable[..., Any]) -> None:
    site = start(users=("me",))
    push(site, "me/app", "v1", user="me:me-word")
    assert form(site, "/r/me/app", b"star=1", "me:me-word", "http://evil.example") == 403
    assert form(site, "/r/me/app", b"star=1", "me:wrong") == 401


def test_login_of_people(start: Callable[..., Any]) -> None:
    site = start(users=("me",))
    asked = site("GET", "/login")
    assert (asked.status, asked.headers["www-authenticate"]) == (
        401,
        'Basic realm="registry", charset="UTF-8"',
    )
    assert site("GET", "/login", user="me:me-word").status == 303


# -- in a browser


class Browser:
    """Headless Chromium over the WebDriver protocol."""

    def __init__(self, address: str, binary: str) -> None:
        self._address = address
        options = {
            "binary": binary,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._session = ""
        self._session = f"/session/{self.ask('POST', '/session', wanted)['sessionId']}"

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._address}{self._session}{path}", data, method=method,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def element(self, selector: str) -> str:
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def click(self, selector: str) -> None:
        self.ask("POST", f"/element/{self.element(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self.ask("POST", f"/element/{self.element(selector)}/value", {"text": text})

    def picture(self) -> bytes:
        return base64.b64decode(self.ask("GET", "/screenshot"))

    def close(self) -> None:
        self.ask("DELETE", "")


@pytest.fixture
def browser(tmp_path: Any) -> Iterator[Browser]:
    driver, binary = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not binary:
        pytest.skip("the host has no chromium with chromedriver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
    running = subprocess.Popen(
        [driver, f"--port={port}"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: listens(port), "chromedriver does not answer")
        opened = Browser(f"http://127.0.0.1:{port}", binary)
        yield opened
        opened.close()
    finally:
        running.terminate()
        running.wait()


@pytest.mark.peer
def test_in_a_browser(site: Any, browser: Browser) -> None:
    push(site, "team/web", "1.0")
    push(site, "tools", "latest")
    browser.open(f"http://{site.host}/")
    browser.type("#q", "web")
    browser.click("header button")
    assert browser.run("return document.title") == "1 found for “web”"
    browser.click(".cards a")
    assert browser.run("return document.querySelector('h1').innerText") == "team/web"
    browser.click("tbody a")
    assert "ADD layer 0" in browser.run("return document.body.innerText")
    # The script runs under the page's own policy: buttons to copy show up and work.
    assert browser.run("return document.querySelector('[data-copy]').hidden") is False
    browser.click("[data-copy]")
    said = "return document.getElementById('said').textContent"
    until(lambda: browser.run(said))
    assert browser.run(said) in ("Copied", "Press Ctrl+C to copy")
    # Nothing is loaded from anywhere else, and every control has a name.
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith((f"http://{site.host}/", "data:")) for name in loaded)
    nameless = browser.run(
        "return [...document.querySelectorAll('input,textarea,button,a')].filter("
        "e => !(e.innerText || e.ariaLabel || (e.labels && e.labels.length))).length"
    )
    assert nameless == 0
    # On a small screen nothing has to be scrolled sideways.
    browser.ask("POST", "/window/rect", {"width": 360, "height": 700})
    for path in ("/", "/r/team/web", "/r/team/web?tag=1.0"):
        browser.open(f"http://{site.host}{path}")
        root = "document.documentElement"
        assert browser.run(f"return {root}.scrollWidth <= {root}.clientWidth"), path
