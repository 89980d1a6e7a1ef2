"""HTTP to an index and its registry for one operation: schemes, tokens, cookies, redirects."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse

from lading.errors import Denied, Invalid, LadingError, NotFound, Unauthorized, Unavailable
from lading.hooks.registry import Remote
from lading.http import retries
from lading.http.retries import reason_of
from lading.http.tls import directory_context
from lading.model.platforms import architecture

#: In the form that registries of the time take apart, to show who pushed.
AGENT = f"lading/{version('lading')} kernel/{os.uname().release} os/linux arch/{architecture()}"
CONNECT_SECONDS = 5.0
#: Larger documents are no answers of an index.
LARGEST_ANSWER = 32 << 20

Body = bytes | Iterable[bytes] | None


class Session:
    """One operation; thread safe."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        folder = Path(remote.certificates) if remote.certificates else None
        self._pool = urllib3.PoolManager(
            num_pools=4,
            maxsize=8,
            retries=False,
            timeout=urllib3.Timeout(connect=min(10.0, remote.timeout), read=remote.timeout),
            ssl_context=directory_context(folder, verify=not remote.insecure),
            headers={"User-Agent": AGENT},
        )
        self._lock = threading.Lock()
        self._cookies: dict[str, dict[str, str]] = {}
        self._index = ""
        self._standalone = True
        self._token = ""
        self._registry = ""

    # -- where things are

    @property
    def index(self) -> str:
        """``https://host/v1/``, or ``http`` for an insecure one without TLS. Raises Unavailable."""
        with self._lock:
            if not self._index:
                self._index = self._find()
            return self._index

    def _find(self) -> str:
        reason: object = "no answer"
        for scheme in ("https", "http") if self.remote.insecure else ("https",):
            url = f"{scheme}://{self.remote.host}/v1/"
            try:
                answer = self._ping(url)
            except urllib3.exceptions.HTTPError as error:
                reason = reason_of(error) if scheme == "https" or reason == "no answer" else reason
                continue
            if answer.status == 200:
                flag = answer.headers.get("X-Docker-Registry-Standalone", "true").strip().lower()
                self._standalone = flag in ("", "true", "1")
                return url
            reason = f"{url}_ping answers {answer.status}"
        raise Unavailable(f'registry "{self.remote.host}": {reason}')

    def _ping(self, url: str) -> BaseHTTPResponse:
        timeout = urllib3.Timeout(
            connect=min(CONNECT_SECONDS, self.remote.timeout), read=min(10.0, self.remote.timeout)
        )
        for attempt in range(retries.STREAM_ATTEMPTS):
            answer = self._pool.request("GET", f"{url}_ping", redirect=False, timeout=timeout)
            if answer.status not in retries.AGAIN:
                break
            time.sleep(retries.pause(attempt, answer.headers))
        return answer

    @property
    def registry(self) -> str:
        """The registry that the index has named last, or the index itself."""
        return self._registry or self.index

    def _learn(self, answer: BaseHTTPResponse) -> None:
        """Take the token and the registry's host from an answer of the index."""
        if token := answer.headers.get("X-Docker-Token", ""):
            # Registries of the time put the scheme in front, indexes did not.
            self._token = re.sub(r"(^|,\s*)(?:Token\s+)+", r"\1", token)
        endpoints = answer.headers.get("X-Docker-Endpoints", "")
        first = endpoints.split(",")[0].strip()
        if first:
            scheme = urlsplit(self.index).scheme
            host = urlsplit(first).netloc if "://" in first else first.partition("/")[0]
            self._registry = f"{scheme}://{host}/v1/"

    # -- requests

    def ask_index(
        self, method: str, path: str, *, body: Body = None, expect: tuple[int, ...] = (200,)
    ) -> BaseHTTPResponse:
        """A request to the index, which is asked for a token on the way."""
        headers = {"X-Docker-Token": "true", **self._basic()}
        answer = self._request(method, urljoin(self.index, path), headers, body)
        if answer.status not in expect:
            raise self.failure(answer, path)
        self._learn(answer)
        return answer

    def ask_registry(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        stream: bool = False,
        expect: tuple[int, ...] = (200,),
    ) -> BaseHTTPResponse:
        """A request to the registry, with the token or, where that is its way, the password."""
        sent = {**(headers or {}), **self._authorization()}
        answer = self._request(method, urljoin(self.registry, path), sent, body, stream=stream)
        if answer.status not in expect:
            raise self.failure(answer, path)
        return answer

    def _basic(self) -> dict[str, str]:
        credentials = self.remote.credentials
        if credentials is None or not credentials.username:
            return {}
        pair = f"{credentials.username}:{credentials.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def _authorization(self) -> dict[str, str]:
        if self._standalone and self.registry.startswith("https:") and self._basic():
            return self._basic()
        return {"Authorization": f"Token {self._token}"} if self._token else self._basic()

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, *, stream: bool = False
    ) -> BaseHTTPResponse:
        """Send it, again when refused for the moment, unless the body can be sent only once.

        Whoever reads a streamed answer decides whether to ask again when there is none.
        """
        attempts = retries.attempts(body, stream=stream)
        for attempt in range(attempts):
            last, pause = attempt == attempts - 1, retries.pause(attempt)
            try:
                answer = self._redirected(method, url, dict(headers), body, stream)
            except urllib3.exceptions.HTTPError as error:
                if last or stream:
                    host = urlsplit(url).netloc
                    raise Unavailable(f'registry "{host}": {reason_of(error)}') from error
            else:
                if answer.status not in retries.AGAIN or last:
                    return answer
                pause = retries.pause(attempt, answer.headers)
                answer.drain_conn()
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _redirected(
        self, method: str, url: str, headers: dict[str, str], body: Body, stream: bool
    ) -> BaseHTTPResponse:
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        for _ in range(retries.MOST_REDIRECTS):
            cookies = self._cookies.get(urlsplit(url).netloc)
            sent = {"User-Agent": AGENT, **headers}
            if cookies:
                sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
            answer = self._pool.request(
                method, url, headers=sent, body=body, preload_content=not stream, redirect=False
            )
            self._keep_cookies(url, answer)
            location = answer.headers.get("Location")
            if answer.status not in retries.REDIRECTS or not location:
                return answer
            answer.drain_conn()
            target = urljoin(url, location)
            if not isinstance(body, bytes | None) or not target.startswith(("http://", "https://")):
                return answer
            if urlsplit(target).netloc != urlsplit(url).netloc:
                # A store elsewhere must not see what the registry is told.
                headers.pop("Authorization", None)
            url = target
        raise Invalid(f'registry "{self.remote.host}": too many redirects')

    def _keep_cookies(self, url: str, answer: BaseHTTPResponse) -> None:
        for line in answer.headers.getlist("Set-Cookie") if answer.headers else ():
            try:
                found = SimpleCookie(line)
            except CookieError:
                continue
            jar = self._cookies.setdefault(urlsplit(url).netloc, {})
            jar.update({name: morsel.value for name, morsel in found.items()})

    def failure(self, answer: BaseHTTPResponse, path: str) -> LadingError:
        """The error that an answer means, with what the registry says about it."""
        said = error_text(answer)
        where = f"{self.remote.host}/{self.remote.repository}".rstrip("/")
        text = f"{where}: {said or f'/v1/{path} answers {answer.status}'}"
        if answer.status == 401:
            if urlsplit(self.index).scheme == "http" and self.remote.credentials is not None:
                return Unauthorized(f"{text}: authentication over plain HTTP failed")
            return Unauthorized(f"{text}: authentication is required", hint="log in first")
        if answer.status == 403:
            return Denied(text)
        if answer.status == 404:
            return NotFound(text)
        return Unavailable(text) if answer.status in retries.AGAIN else Invalid(text)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def error_text(answer: BaseHTTPResponse) -> str:
    """What ``{"error": ...}`` says; "" for an answer of another form."""
    try:
        document = json.loads(answer.data)
    except (ValueError, urllib3.exceptions.HTTPError):
        return ""
    return str(document.get("error") or "") if isinstance(document, dict) else ""


def document_of(answer: BaseHTTPResponse) -> Any:
    """The JSON of an answer. Raises Invalid."""
    if len(answer.data) > LARGEST_ANSWER:
        raise Invalid(f"the registry's answer has more than {LARGEST_ANSWER} bytes")
    try:
        return json.loads(answer.data)
    except ValueError as error:
        raise Invalid(f"the registry's answer is no JSON: {error}") from error
