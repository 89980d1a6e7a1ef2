"""What requests carry beside their body: filters, times, credentials."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
import time
from typing import Any

from lading.errors import Invalid
from lading.http.messages import Request
from lading.model.body import decode
from lading.model.docker import AuthConfig

Filters = dict[str, list[str]]

BODY_LIMIT = 8 << 20
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?(Z|[+-]\d\d:\d\d)?"
)


def filters(request: Request) -> Filters:
    """The parameter ``filters``: ``{"k": ["v"]}``, or ``{"k": {"v": true}}`` since 1.22."""
    given = request.query.json("filters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise Invalid("invalid filter: not a JSON object")
    return {str(key): _values(key, value) for key, value in given.items()}


def _values(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(v) for v, wanted in value.items() if wanted]
    if isinstance(value, list):
        return [str(v) for v in value]
    if isinstance(value, str | bool | int):
        return [str(value).lower() if isinstance(value, bool) else str(value)]
    raise Invalid(f"invalid filter '{key}': not a list of values")


def nanoseconds(request: Request, name: str) -> int:
    """A time as nanoseconds since 1970: Unix seconds with a fraction, or RFC 3339; 0 if absent."""
    text = request.query.get(name).strip()
    if text in ("", "0"):
        return 0
    if re.fullmatch(r"-?\d+(\.\d*)?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Invalid(f'query parameter "{name}": "{text}" is neither Unix seconds nor RFC 3339')
    fields = tuple(int(part or 0) for part in match.groups()[:6])
    return _from_fields(fields, match[7] or "", match[8] or "Z")


def _from_fields(fields: tuple[int, ...], fraction: str, zone: str) -> int:
    seconds = calendar.timegm(time.struct_time((*fields, 0, 0, 0)))
    if zone != "Z":
        hours, minutes = zone[1:].split(":")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 10**9 + int(fraction[1:].ljust(9, "0")[:9] or 0)


def body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The whole of a small body. Raises Invalid when it is larger than ``limit`` bytes."""
    data = request.body.read(limit + 1)
    if len(data) > limit:
        raise Invalid(f"request body: larger than {limit} bytes")
    return data


def required(request: Request, name: str) -> str:
    """A parameter that must not be empty."""
    value = request.query.get(name)
    if not value:
        raise Invalid(f'query parameter "{name}" is missing or empty')
    return value


def optional_integer(request: Request, name: str) -> int | None:
    """A number, None when it is not given."""
    return request.query.integer(name) if request.query.get(name) else None


def credentials(request: Request) -> AuthConfig | None:
    """The header ``X-Registry-Auth``; what cannot be decoded counts as none, as in Docker."""
    text = request.headers.get("x-registry-auth", "")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        given = decode(raw, AuthConfig)
    except (binascii.Error, ValueError, Invalid):
        return None
    return given if given != AuthConfig() else None


def size_of_terminal(request: Request) -> tuple[int, int]:
    """The parameters ``h`` and ``w``: rows and columns."""
    return _dimension(request, "h"), _dimension(request, "w")


def _dimension(request: Request, name: str) -> int:
    value = request.query.integer(name, -1)
    if not 0 <= value <= 0xFFFF:
        raise Invalid(f'invalid resize {"height" if name == "h" else "width"} "{value}"')
    return value
