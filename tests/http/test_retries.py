"""When requests are sent again."""

from __future__ import annotations

import pytest

from lading.http import retries


def test_pauses_double_unless_the_server_says_how_long() -> None:
    first, second, third = (retries.pause(n) for n in range(3))
    assert (second, third) == (2 * first, 4 * first)
    assert retries.pause(0, {"Retry-After": "7"}) == 7
    assert retries.pause(0, {"Retry-After": "86400"}) == retries.LONGEST_PAUSE
    assert retries.pause(0, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == first


@pytest.mark.parametrize(
    ("body", "stream", "expected"),
    [(None, False, 5), (b"x", False, 5), (None, True, 3), (iter([b"x"]), False, 1)],
)
def test_a_body_that_can_be_read_once_is_sent_once(
    body: object, stream: bool, expected: int
) -> None:
    assert retries.attempts(body, stream=stream) == expected


def test_reasons_are_said_without_wrapping() -> None:
    inner = OSError("[Errno 111] Connection refused")
    outer = RuntimeError("HTTPConnectionPool(host='x', port=1): Max retries exceeded")
    outer.reason = inner  # type: ignore[attr-defined]
    assert retries.reason_of(outer) == "[Errno 111] Connection refused"
    assert retries.reason_of(RuntimeError("HTTPConnection(host='x'): timed out")) == "timed out"
    assert retries.reason_of(TimeoutError()) == "TimeoutError"
