"""Times as the API has them: RFC 3339 in UTC with nanoseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime


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
