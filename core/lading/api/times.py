"""Times and durations in the words of Docker's texts."""

from __future__ import annotations

import calendar
import time

_STEPS = (
    # below this many seconds, in units of that many, called so
    (120, 60, "About a minute"),
    (60 * 60, 60, "minutes"),
    (2 * 60 * 60, 3600, "About an hour"),
    (48 * 3600, 3600, "hours"),
    (14 * 86400, 86400, "days"),
    (60 * 86400, 7 * 86400, "weeks"),
    (2 * 365 * 86400, 30 * 86400, "months"),
)


def seconds_of(timestamp: str) -> int:
    """An RFC 3339 time in UTC as Unix seconds; 0 for none."""
    if not timestamp or timestamp.startswith("0001-"):
        return 0
    return calendar.timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S"))


def human(seconds: float) -> str:
    """A duration as ``docker ps`` words it: "5 minutes", "About an hour"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    for limit, unit, name in _STEPS:
        if whole < limit:
            return name if name.startswith("About") else f"{whole // unit} {name}"
    return f"{whole // (365 * 86400)} years"


def ago(timestamp: str) -> str:
    """How long a time is past."""
    return human(time.time() - seconds_of(timestamp))
