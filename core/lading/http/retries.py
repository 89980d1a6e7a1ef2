"""When a request to somebody else's server is worth sending again, and after how long.

For clients of any HTTP library: nothing here is tied to one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Answers that may be others a moment later (RFC 9110, 15.5.9 and 15.6; RFC 6585, 4).
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
#: Times that a request is sent, and one whose answer is read as a stream.
ATTEMPTS = 5
STREAM_ATTEMPTS = 3
#: The first pause before a request is sent again, in seconds; it doubles each time.
PAUSE = 0.2
#: The longest pause that a server may ask for, in seconds.
LONGEST_PAUSE = 20.0


def attempts(body: object, *, stream: bool) -> int:
    """How often a request may be sent: once when its body can be read only once."""
    if body is not None and not isinstance(body, bytes):
        return 1
    return STREAM_ATTEMPTS if stream else ATTEMPTS


def pause(attempt: int, headers: Mapping[str, str] | None = None) -> float:
    """Seconds to wait after an attempt, counted from 0; a ``Retry-After`` in seconds is heeded."""
    wanted = (headers or {}).get("Retry-After", "")
    return min(float(wanted), LONGEST_PAUSE) if wanted.isdecimal() else PAUSE * 2**attempt


def reason_of(error: Exception) -> str:
    """What went wrong, without a library's wrapping."""
    inner: Any = error
    while isinstance(getattr(inner, "reason", None), Exception):
        inner = inner.reason
    text = re.sub(r"^<[^>]*>: |^HTTPS?Connection(?:Pool)?\([^)]*\): ", "", str(inner))
    return text or type(inner).__name__
