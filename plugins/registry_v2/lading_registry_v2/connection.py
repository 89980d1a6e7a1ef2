"""HTTP to one registry: schemes, certificates, authentication, retries of what is safe to retry."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
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
from lading_registry_v2.authorization import Authorizations

AGENT = f"lading/{version('lading')}"
CONNECT_SECONDS = 10.0

Body = bytes | Iterable[bytes] | None


class Connection:
    """One registry on behalf of one user; thread safe."""

    def __init__(self, remote: Remote, *, offline: bool = False) -> None:
        """``offline``: get a refresh token, see :class:`Authorizations`."""
        self.remote = remote
        folder = Path(remote.certificates) if remote.certificates else None
        self._pool = urllib3.PoolManager(
            num_pools=4,
            maxsize=8,
            retries=False,
            timeout=urllib3.Timeout(
                connect=min(CONNECT_SECONDS, remote.timeout), read=remote.timeout
            ),
            ssl_context=directory_context(folder, verify=not remote.insecure),
            headers={"User-Agent": AGENT},
        )
        self._authorizations = Authorizations(remote, self._pool, offline=offline)
        self._lock = threading.Lock()
        self._base = ""

    @property
    def base(self) -> str:
        """``https://host/v2/`` or, for an insecure registry that has no TLS, ``http://``."""
        with self._lock:
            if not self._base:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        reason: object = "no answer"
        for scheme in ("https", "http") if self.remote.insecure else ("https",):
            url = f"{scheme}://{self.remote.host}/v2/"
            try:
                answer = self._pool.request("GET", url, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                # What TLS said is of more use than that nobody speaks plain HTTP either.
                reason = reason_of(error) if scheme == "https" else reason
                continue
            if answer.status < 500 or answer.status in retries.AGAIN:
                return url
            reason = f"{url} answers {answer.status}"
        raise Unavailable(f'registry "{self.remote.host}": {reason}')

    def ping(self) -> BaseHTTPResponse:
        """The answer to ``GET /v2/``, whatever it is. Raises Unavailable."""
        base = self.base
        try:
            return self._pool.request("GET", base, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f'registry "{self.remote.host}": {reason_of(error)}') from error

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        stream: bool = False,
        expect: tuple[int, ...] = (200,),
    ) -> BaseHTTPResponse:
        """One request under ``/v2/`` (or at a whole URL), authenticated for ``scope``.

        Retried when refused for the moment (429, 5xx) or unanswered, unless its body or its answer
        is a stream: whoever reads or writes that decides. Raises the error that the answer means
        when its status is not among ``expect``.
        """
        url = urljoin(self.base, path)
        attempts = retries.attempts(body, stream=stream)
        for attempt in range(attempts):
            last, pause = attempt == attempts - 1, retries.pause(attempt)
            try:
                answer = self._authorized(method, url, scope, dict(headers or {}), body, stream)
            except urllib3.exceptions.HTTPError as error:
                if last or stream:
                    raise Unavailable(
                        f'registry "{self.remote.host}": {reason_of(error)}'
                    ) from error
            else:
                if answer.status in expect:
                    return answer
                if answer.status not in retries.AGAIN or last:
                    raise failure(answer, self.remote)
                pause = retries.pause(attempt, answer.headers)
                answer.drain_conn()
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _authorized(
        self, method: str, url: str, scope: str, headers: dict[str, str], body: Body, stream: bool
    ) -> BaseHTTPResponse:
        """Send it; answer a challenge once. A streamed body cannot be sent twice."""
        own = urlsplit(url).netloc == urlsplit(self.base).netloc
        known = self._authorizations.known(scope) if own else ""
        answer = self._redirected(method, url, headers, known, body, stream)
        if answer.status != 401 or not own:
            return answer
        self._authorizations.forget(scope)
        if body is not None and not isinstance(body, bytes):
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        found = self._authorizations.answer(challenge, scope)
        if not found or found == known:
            return answer
        answer.drain_conn()
        return self._redirected(method, url, headers, found, body, stream)

    def _redirected(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        authorization: str,
        body: Body,
        stream: bool,
    ) -> BaseHTTPResponse:
        origin = urlsplit(url).netloc
        for _ in range(retries.MOST_REDIRECTS):
            sent = {"User-Agent": AGENT, **headers}
            # Storage elsewhere must not see what the registry is told.
            if authorization and urlsplit(url).netloc == origin:
                sent["Authorization"] = authorization
            answer = self._pool.request(
                method, url, headers=sent, body=body, preload_content=not stream, redirect=False
            )
            location = answer.headers.get("Location")
            if (
                answer.status not in retries.REDIRECTS
                or not location
                or method not in ("GET", "HEAD")
            ):
                return answer
            answer.drain_conn()
            url = urljoin(url, location)
            if not url.startswith(("https://", "http://")):
                break
        raise Invalid(f'registry "{self.remote.host}": a redirect that leads nowhere')

    def authenticate(self, scope: str) -> None:
        """Get what a request with a streamed body needs, since that cannot be sent twice."""
        if not self._authorizations.known(scope):
            answer = self.ping()
            if answer.status == 401:
                self._authorizations.answer(answer.headers.get("WWW-Authenticate", ""), scope)

    @property
    def refresh_token(self) -> str:
        """What a token server has given to be used instead of the password, or ""."""
        return self._authorizations.refresh_token

    def pages(self, path: str, *, scope: str) -> Iterator[Mapping[str, Any]]:
        """The documents of a paginated list (spec, "Listing Tags"; RFC 8288 links)."""
        seen = set()
        while path and path not in seen:
            seen.add(path)
            answer = self.request("GET", path, scope=scope)
            yield json_object(answer)
            link = re.match(r'<([^>]+)>;\s*rel="?next', answer.headers.get("Link", ""))
            path = link.group(1) if link else ""

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def json_object(answer: BaseHTTPResponse) -> Mapping[str, Any]:
    """The JSON object that an answer is. Raises Invalid."""
    try:
        document = json.loads(answer.data)
    except ValueError as error:
        raise Invalid(f"the registry's answer is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("the registry's answer is no JSON object")
    return document


def failure(answer: BaseHTTPResponse, remote: Remote) -> LadingError:
    """The error that an answer means, with what the registry says about it."""
    text = ""
    try:
        rows = json.loads(answer.data).get("errors") or [{}]
        text = str(rows[0].get("message") or rows[0].get("code") or "")
    except (ValueError, AttributeError, IndexError, KeyError, urllib3.exceptions.HTTPError):
        pass
    where = f"{remote.host}/{remote.repository}".rstrip("/")
    said = f"{where}: {text or f'the registry answers {answer.status}'}"
    if answer.status == 401:
        return Unauthorized(f"{said}: authentication required", hint="log in first")
    if answer.status == 403:
        return Denied(f"{said}: requested access to the resource is denied")
    if answer.status == 404:
        return NotFound(said)
    if answer.status in retries.AGAIN:
        return Unavailable(said)
    return Invalid(said)
