"""Answers in the form of the protocols of 2014."""

from __future__ import annotations

import json
from typing import Any

from lading.http.messages import Response

NO_CACHE = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1"}
#: Documents, ancestries and layers never change.
CACHED = {
    "Cache-Control": "public, max-age=31536000",
    "Expires": "Thu, 31 Dec 2037 23:55:55 GMT",
    "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
}


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    found = {"Content-Type": "application/json", **(NO_CACHE if headers is None else headers)}
    return Response(status, found, b"" if status == 204 else json.dumps(value).encode())
