"""HTTP to one registry: schemes, certificates, authentication, retries of what is safe to retry."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse

from lading.errors import Denied, Invalid, LadingError, NotFound, Unauthorized, Unavailable
from lading.hooks.registry import Credentials, Remote

TIMEOUT = urllib3.Timeout(connect=10, read=60)
ATTEMPTS = 5
#: The longest pause that a server may ask for, in seconds.
LONGEST_PAUSE = 20.0
_AGAIN = frozenset({429, 500, 502, 503, 504})
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Connection:
    """One registry on behalf of one user; thread safe."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._pool = urllib3.PoolManager(
            num_pools=4, maxsize=8, retries=False, timeout=TIMEOUT, ssl_context=_context(remote)
        )
        self._lock = threading.Lock()
        self._base = ""
        self._authorization: dict[str, str] = {}

    @property
    def base(self) -> str:
        """``https://host/v2/`` or, for an insecure registry that has no TLS, ``http://``."""
        with self._lock:
            if not self._base:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        schemes = ("https", "http") if self.remote.insecure else ("https",)
        failure: Exception | None = None
        for scheme in schemes:
            url = f"{scheme}://{self.remote.host}/v2/"
            try:
                answer = self._pool.request("GET", url, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                failure = failure or error
                continue
            if answer.status < 500:
                return url
            failure = failure or LadingError(f"{url} answers {answer.status}")
        raise Unavailable(f'registry "{self.remote.host}": {_reason(failure)}') from failure

    def ping(self) -> BaseHTTPResponse:
        """The answer to ``GET /v2/``, whatever it is."""
        return self._pool.request("GET", self.base, redirect=False)

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        stream: bool = False,
        expect: tuple[int, ...] = (200,),
    ) -> BaseHTTPResponse:
        """One request under ``/v2/`` (or at a whole URL), authenticated for ``scope``.

        Retried when refused for the moment (429, 5xx) or unanswered, unless it has a streamed body.
        Raises the error that the answer means when its status is not among ``expect``.
        """
        url = urljoin(self.base, path)
        repeatable = body is None or isinstance(body, bytes)
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1 or not repeatable
            try:
                answer = self._once(method, url, scope, headers or {}, body, stream)
            except urllib3.exceptions.HTTPError as error:
                if last:
                    raise Unavailable(f'registry "{self.remote.host}": {_reason(error)}') from error
                time.sleep(0.1 * 2**attempt)
                continue
            if answer.status in _AGAIN and not last:
                pause = _pause(answer, attempt)
                answer.drain_conn()
                time.sleep(pause)
                continue
            break
        if answer.status not in expect:
            raise failure(answer, self.remote)
        return answer

    def _once(
        self, method: str, url: str, scope: str, headers: Mapping[str, str], body: Any, stream: bool
    ) -> BaseHTTPResponse:
        own = urlsplit(url).netloc == urlsplit(self.base).netloc
        sent = dict(headers)
        if own and (known := self._authorization.get(scope)):
            sent["Authorization"] = known
        answer = self._pool.request(
            method, url, headers=sent, body=body, preload_content=not stream, redirect=False
        )
        if answer.status == 401 and own and (body is None or isinstance(body, bytes)):
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.drain_conn()
            if authorization := self._authorize(challenge, scope):
                self._authorization[scope] = sent["Authorization"] = authorization
                answer = self._pool.request(
                    method, url, headers=sent, body=body, preload_content=not stream, redirect=False
                )
        location = answer.headers.get("Location")
        if answer.status in (301, 302, 303, 307, 308) and location and method in ("GET", "HEAD"):
            answer.drain_conn()
            # Storage elsewhere must not see what the registry is told.
            kept = {k: v for k, v in headers.items() if k != "Authorization"}
            return self._once(method, urljoin(url, location), scope, kept, body, stream)
        return answer

    def authenticate(self, scope: str) -> None:
        """Get what a request with a streamed body needs, since that cannot be sent twice."""
        if scope not in self._authorization:
            answer = self.ping()
            if answer.status == 401:
                found = self._authorize(answer.headers.get("WWW-Authenticate", ""), scope)
                if found:
                    self._authorization[scope] = found

    def _authorize(self, challenge: str, scope: str) -> str:
        """The Authorization header that answers a challenge; "" when there is none to give."""
        scheme, _, parameters = challenge.partition(" ")
        credentials = self.remote.credentials
        if scheme.lower() == "basic":
            return _basic(credentials) if credentials else ""
        if scheme.lower() != "bearer":
            return ""
        fields = dict(_CHALLENGE.findall(parameters))
        return f"Bearer {self._token(fields, scope, credentials)}"

    def _token(self, fields: Mapping[str, str], scope: str, credentials: Credentials | None) -> str:
        realm = fields.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise Invalid(f'registry "{self.remote.host}": challenge without a realm')
        query = {"service": fields.get("service", ""), "scope": scope}
        if credentials and credentials.identity_token:
            form = urlencode(
                {
                    "grant_type": "refresh_token", "client_id": "lading",
                    "refresh_token": credentials.identity_token, **query,
                }
            )  # fmt: skip
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._pool.request("POST", realm, body=form.encode(), headers=kind)
        else:
            headers = {"Authorization": _basic(credentials)} if credentials else {}
            url = f"{realm}?{urlencode({k: v for k, v in query.items() if v})}"
            answer = self._pool.request("GET", url, headers=headers)
        if answer.status != 200:
            raise failure(answer, self.remote)
        document = _json(answer)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str):
            raise Invalid(f'registry "{self.remote.host}": the token server sent no token')
        return token

    def pages(self, path: str, *, scope: str) -> Iterator[Mapping[str, Any]]:
        """The documents of a paginated list (spec, "Listing Tags"; RFC 5988 links)."""
        while path:
            answer = self.request("GET", path, scope=scope)
            yield _json(answer)
            link = re.match(r'<([^>]+)>;\s*rel="?next', answer.headers.get("Link", ""))
            path = link.group(1) if link else ""

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _basic(credentials: Credentials | None) -> str:
    if credentials is None:
        return ""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _context(remote: Remote) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if remote.certificates:
        folder = Path(remote.certificates)
        for authority in folder.glob("*.crt"):
            context.load_verify_locations(authority)
        for certificate in folder.glob("*.cert"):
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    elif remote.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _pause(answer: BaseHTTPResponse, attempt: int) -> float:
    wanted = answer.headers.get("Retry-After", "")
    return min(float(wanted) if wanted.isdigit() else 0.2 * 2**attempt, LONGEST_PAUSE)


def _json(answer: BaseHTTPResponse) -> Mapping[str, Any]:
    try:
        document = json.loads(answer.data)
    except ValueError as error:
        raise Invalid(f"the registry's answer is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("the registry's answer is no JSON object")
    return document


def _reason(error: Exception | None) -> str:
    inner: Any = error
    while getattr(inner, "reason", None) is not None and not isinstance(inner.reason, str):
        inner = inner.reason
    text = re.sub(r"^<[^>]*>: |^HTTPS?ConnectionPool\([^)]*\): ", "", str(inner))
    return text or type(inner).__name__


def failure(answer: BaseHTTPResponse, remote: Remote) -> LadingError:
    """The error that an answer means, with what the registry says about it."""
    text = ""
    try:
        rows = json.loads(answer.data).get("errors") or [{}]
        text = str(rows[0].get("message") or rows[0].get("code") or "")
    except (ValueError, AttributeError, IndexError, urllib3.exceptions.HTTPError):
        pass
    where = f"{remote.host}/{remote.repository}".rstrip("/")
    said = f"{where}: {text or f'the registry answers {answer.status}'}"
    if answer.status == 401:
        return Unauthorized(f"{said}: authentication required", hint="log in first")
    if answer.status == 403:
        return Denied(f"{said}: requested access to the resource is denied")
    if answer.status == 404:
        return NotFound(said)
    if answer.status in _AGAIN:
        return Unavailable(said)
    return Invalid(said)
