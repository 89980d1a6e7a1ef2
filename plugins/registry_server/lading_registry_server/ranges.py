"""The ``Range`` header (RFC 9110, 14.2), as far as one range goes."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*")


def parse(header: str, size: int, *, suffixes: bool = True) -> tuple[int, int] | None:
    """Offset and length of what is asked for; None for the whole.

    A range of another form means the whole; one that ends too late is cut. Raises ValueError when
    nothing is left of it. ``suffixes``: whether ``bytes=-5`` is the last five bytes.
    """
    match = _RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        if not suffixes:
            return None
        length = min(int(last), size)
        if not length:
            raise ValueError("an empty range")
        return size - length, length
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise ValueError("a range behind the end")
    return start, end - start + 1
