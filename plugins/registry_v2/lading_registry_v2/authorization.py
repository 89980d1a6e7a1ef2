"""What to put into ``Authorization``: Basic, or a bearer token for a scope.

Sources: RFC 9110, 11.6 (challenges), distribution's token specification and its OAuth 2 variant.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import urllib3

from lading.errors import Denied, Invalid, Unauthorized, Unavailable
from lading.hooks.registry import Credentials, Remote

#: A token without a time of its own is good for so many seconds (the token specification).
LIFETIME = 60.0
#: One that ends within so many seconds is not used any more.
MARGIN = 5.0

CLIENT = "lading"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: What both ways of asking for a token know.
_BOTH = ("service", "scope")

Fields = list[tuple[str, str]]

_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z][\w-]*)(?=\s+\w+\s*=|\s*$|\s*,)")
_FIELD = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


class Authorizations:
    """Header values by scope; thread safe.

    With ``offline`` a token server is asked for a refresh token as well, which from then on stands
    for the password: it is ``refresh_token``, "" where the server gives none.
    """

    def __init__(self, remote: Remote, pool: urllib3.PoolManager, *, offline: bool = False) -> None:
        self._remote, self._pool, self._offline = remote, pool, offline
        self.refresh_token = ""
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}

    def known(self, scope: str) -> str:
        """What is still good for the scope, or ""."""
        value, until = self._known.get(scope, ("", 0.0))
        return value if until > time.monotonic() else ""

    def forget(self, scope: str) -> None:
        """Drop what was refused."""
        self._known.pop(scope, None)

    def answer(self, challenge: str, scope: str) -> str:
        """The value that answers a challenge; "" when there is none to give."""
        challenges = parse_challenges(challenge)
        with self._lock:
            if known := self.known(scope):
                return known
            if "bearer" in challenges:
                value, lifetime = self._token(challenges["bearer"], scope)
            elif "basic" in challenges and self._remote.credentials is not None:
                value, lifetime = basic(self._remote.credentials), float("inf")
            else:
                return ""
            self._known[scope] = (value, time.monotonic() + lifetime - MARGIN)
        return value

    def _token(self, fields: Mapping[str, str], scope: str) -> tuple[str, float]:
        realm = fields.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise Invalid(f'registry "{self._remote.host}": challenge without a realm')
        credentials = self._remote.credentials
        if credentials and realm.startswith("http:") and not self._remote.insecure:
            raise Denied(
                f'registry "{self._remote.host}" wants the password sent to "{realm}" in the clear'
            )
        query = [("service", fields.get("service", ""))]
        query += [("scope", part) for part in scope.split()]
        query = [(name, value) for name, value in query if value]
        try:
            if credentials and credentials.identity_token:
                grant = [("grant_type", "refresh_token")]
                answer = self._by_form(
                    realm, [*grant, ("refresh_token", credentials.identity_token), *query]
                )
            else:
                answer = self._by_password(realm, query, credentials)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f'token server "{realm}": {error}') from error
        return self._read(answer, realm)

    def _by_password(self, realm: str, query: Fields, credentials: Credentials | None) -> Any:
        """As the token specification has it, or else by its OAuth 2 variant."""
        headers = {"Authorization": basic(credentials)} if credentials else {}
        if self._offline:
            query = [*query, ("client_id", CLIENT), ("offline_token", "true")]
        separator = "&" if "?" in realm else "?"
        url = f"{realm}{separator}{urlencode(query)}" if query else realm
        answer = self._pool.request("GET", url, headers=headers)
        if credentials is None or answer.status not in (404, 405):
            return answer
        fields = [
            ("grant_type", "password"),
            ("username", credentials.username),
            ("password", credentials.password),
            ("access_type", "offline" if self._offline else "online"),
        ]
        return self._by_form(realm, fields + [row for row in query if row[0] in _BOTH])

    def _by_form(self, realm: str, fields: Fields) -> Any:
        body = urlencode([("client_id", CLIENT), *fields]).encode()
        return self._pool.request("POST", realm, body=body, headers=dict(_FORM))

    def _read(self, answer: Any, realm: str) -> tuple[str, float]:
        if answer.status in (400, 401, 403):
            raise Unauthorized(
                f'token server "{realm}": incorrect username or password', hint="log in again"
            )
        if answer.status != 200:
            raise Unavailable(f'token server "{realm}" answers {answer.status}')
        try:
            document = json.loads(answer.data)
            token = document.get("token") or document.get("access_token")
            lifetime = float(document.get("expires_in") or LIFETIME)
            self.refresh_token = str(document.get("refresh_token") or self.refresh_token)
        except (ValueError, AttributeError, TypeError) as error:
            raise Invalid(f'token server "{realm}": the answer is none') from error
        if not isinstance(token, str):
            raise Invalid(f'token server "{realm}" sent no token')
        return f"Bearer {token}", max(lifetime, LIFETIME)


def basic(credentials: Credentials) -> str:
    """The value for a name and password."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def parse_challenges(header: str) -> dict[str, dict[str, str]]:
    """The challenges of a ``WWW-Authenticate`` header by scheme, in lower case."""
    # Quoted values may hold what looks like another challenge.
    masked = re.sub(
        r'"(?:[^"\\]|\\.)*"', lambda match: '"' + "x" * (len(match[0]) - 2) + '"', header
    )
    found: dict[str, dict[str, str]] = {}
    schemes = list(_SCHEME.finditer(masked))
    ends = [following.start() for following in schemes[1:]] + [len(header)]
    for scheme, end in zip(schemes, ends, strict=False):
        text = header[scheme.end() : end]
        fields = {name: quoted or bare for name, quoted, bare in _FIELD.findall(text)}
        found.setdefault(scheme[1].lower(), fields)
    return found
