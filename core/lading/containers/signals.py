"""Signals by name or number, as users write them."""

from __future__ import annotations

import signal

from lading.errors import Invalid


def number(text: str) -> int:
    """``9``, ``KILL``, ``SIGKILL``, ``sigrtmin+3``. Raises Invalid."""
    if text.isascii() and text.isdecimal():
        value = int(text)
        if not 1 <= value <= signal.SIGRTMAX:
            raise Invalid(f"Invalid signal: {text}")
        return value
    name = text.upper().removeprefix("SIG")
    for base, limit in (("RTMIN", signal.SIGRTMIN), ("RTMAX", signal.SIGRTMAX)):
        rest = name.removeprefix(base)
        if rest != name and (not rest or rest[1:].isdecimal()):
            value = int(limit) + int(rest or 0)
            if signal.SIGRTMIN <= value <= signal.SIGRTMAX:
                return value
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise Invalid(f"Invalid signal: {text}") from None
