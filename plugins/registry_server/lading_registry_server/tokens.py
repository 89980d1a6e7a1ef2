"""Signed tokens: what they say cannot be changed, and ends by itself.

A token is ``base64url(JSON).base64url(HMAC-SHA256)``; clients carry it without looking inside.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

#: How long a token allows what it allows, in seconds.
LIFETIME = 300
#: How long a client may use a refresh token instead of a password.
REFRESH_LIFETIME = 90 * 24 * 3600


class Claims(msgspec.Struct, omit_defaults=True):
    """What a token says: ``access`` are actions by repository; ``kind`` is what it is good for.

    One with a ``stamp`` is good as long as what that was made of stays.
    """

    kind: str
    user: str
    expires: float
    access: dict[str, list[str]] = {}
    stamp: str = ""


class Tokens:
    """Makes and reads tokens with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, path: Path) -> Tokens:
        """With the key in a file, which is made if it is not there."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return cls(path.read_bytes())
        with open(descriptor, "wb") as out:
            key = secrets.token_bytes(32)
            out.write(key)
        return cls(key)

    def make(
        self,
        kind: str,
        user: str,
        access: Mapping[str, list[str]] | None = None,
        lifetime: float = LIFETIME,
        stamp: str = "",
    ) -> str:
        """A new token."""
        claims = Claims(kind, user, time.time() + lifetime, dict(access or {}), stamp)
        body = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=")
        return f"{body.decode()}.{self._signature(body)}"

    def read(self, kind: str, token: str) -> Claims | None:
        """What a token of that kind says; None for a false or old one."""
        body, _, signature = token.partition(".")
        if not hmac.compare_digest(self._signature(body.encode()), signature):
            return None
        try:
            text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            claims = msgspec.json.decode(text, type=Claims)
        except (binascii.Error, msgspec.DecodeError, ValueError):
            return None
        return claims if claims.kind == kind and claims.expires > time.time() else None

    def _signature(self, body: bytes) -> str:
        digest = hmac.digest(self._key, body, "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
