"""Times as the API has them: RFC 3339 in UTC with nanoseconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from lading.errors import Invalid

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|s|m|h)")


def now() -> str:
    """The present time."""
    return timestamp(time.time_ns())


def timestamp(nanoseconds: int) -> str:
    """A time given in nanoseconds since 1970."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def nanoseconds(text: str) -> int:
    """The reverse of :func:`timestamp`; any RFC 3339 text. Raises ValueError."""
    head, dot, rest = text.partition(".")
    if not dot:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    whole = datetime.fromisoformat(head + (rest[len(digits) :] or "Z"))
    return int(whole.timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0"))


def point_in_time(text: str) -> int:
    """Nanoseconds since 1970, from seconds, RFC 3339, or a duration before now like ``10m``.

    Raises Invalid.
    """
    try:
        return int(float(text) * 1_000_000_000)
    except ValueError:
        pass
    if text and _DURATION.sub("", text) == "":
        ago = sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(text))
        return time.time_ns() - int(ago * 1_000_000_000)
    try:
        return nanoseconds(text)
    except ValueError:
        raise Invalid(f"failed to parse value as time or duration: {text!r}") from None
