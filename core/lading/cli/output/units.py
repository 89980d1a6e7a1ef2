"""Sizes, durations and times as Docker writes and reads them."""

from __future__ import annotations

import re
import time

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
# Compiled when they are used: most calls of the command line read no such text.
_SIZE = r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?"
_DURATION = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_TIME = (
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?(Z|[+-]\d\d:?\d\d)?"
)
_EXPONENTS = {letter: i + 1 for i, letter in enumerate("kmgtp")}
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
SECOND = 1_000_000_000


def human_size(size: float, precision: int = 4) -> str:
    """``2.5MB``: steps of 1000."""
    return _scaled(size, 1000.0, DECIMAL, precision)


def binary_size(size: float, precision: int = 4) -> str:
    """``2.5MiB``: steps of 1024."""
    return _scaled(size, 1024.0, BINARY, precision)


def _scaled(size: float, base: float, names: tuple[str, ...], precision: int) -> str:
    step = 0
    while size >= base and step < len(names) - 1:
        size /= base
        step += 1
    return f"{size:.{precision}g}{names[step]}"


def human_duration(seconds: float) -> str:
    """``5 minutes``, ``About an hour``, ``3 weeks``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if whole < 120:
        return "About a minute"
    if whole < 3600:
        return f"{whole // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(unix: float) -> str:
    """How long ago a time was."""
    return human_duration(time.time() - unix) + " ago"


def size_in_bytes(text: str) -> int:
    """``512m``, ``1.5g``, ``100`` in steps of 1024; raises ValueError."""
    found = re.fullmatch(_SIZE, text)
    if found is None:
        raise ValueError(f"invalid size: '{text}'")
    exponent = _EXPONENTS.get((found.group(2) or "").lower(), 0)
    return int(float(found.group(1)) * 1024**exponent)


def duration_in_nanoseconds(text: str) -> int:
    """Go's durations, ``1h30m`` or ``500ms``; raises ValueError."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, at = 0.0, 0
    for found in re.finditer(_DURATION, rest):
        if found.start() != at:
            break
        total += float(found.group(1)) * _NANOSECONDS[found.group(2)]
        at = found.end()
    if not rest or at != len(rest):
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * round(total)


def go_duration(nanoseconds: int) -> str:
    """A duration as Go writes it: ``1m30s``, ``1.5s``, ``200ms``."""
    if nanoseconds == 0:
        return "0s"
    if abs(nanoseconds) < SECOND:
        for unit in ("ms", "µs", "ns"):
            if abs(nanoseconds) >= _NANOSECONDS[unit]:
                return f"{nanoseconds / _NANOSECONDS[unit]:g}{unit}"
    seconds, rest = divmod(abs(nanoseconds), SECOND)
    shown = f"{seconds % 60 + rest / SECOND:.9f}".rstrip("0").rstrip(".") + "s"
    if seconds >= 60:
        shown = f"{seconds // 60 % 60}m{shown}"
    if seconds >= 3600:
        shown = f"{seconds // 3600}h{shown}"
    return "-" + shown if nanoseconds < 0 else shown


def unix_time(text: str) -> float:
    """An RFC 3339 time, possibly shortened (local when it names no zone), as Unix seconds."""
    whole, nanoseconds = _parsed_time(text)
    return whole + nanoseconds / SECOND


def timestamp(text: str) -> str:
    """``--since`` and ``--until`` as the API takes them: Unix seconds with a fraction.

    Takes a duration back from now, a time, or Unix seconds; raises ValueError.
    """
    if not text:
        return ""
    try:
        back = duration_in_nanoseconds(text)
    except ValueError:
        pass
    else:
        if text.strip("0"):
            whole, rest = divmod(time.time_ns() - back, SECOND)
            return f"{whole}.{rest:09d}"
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    whole, nanoseconds = _parsed_time(text)
    return f"{whole}.{nanoseconds:09d}"


def _parsed_time(text: str) -> tuple[int, int]:
    import calendar  # late: not every command shows times

    found = re.fullmatch(_TIME, text)
    if found is None:
        raise ValueError(f'failed to parse value as time or duration: "{text}"')
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    zone = found.group(8)
    parts = (year, month, day, hour, minute, second, 0, 0, -1)
    if zone is None:
        whole = int(time.mktime(parts))
    else:
        whole = calendar.timegm(parts)
        if zone != "Z":
            sign = -1 if zone[0] == "-" else 1
            whole -= sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return whole, int((found.group(7) or "0").ljust(9, "0")[:9])


def local_time(unix: float) -> str:
    """``2014-05-07 12:00:00 +0200 CEST``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(unix))


def go_time(text: str) -> str:
    """An RFC 3339 time as Go prints times: ``2014-05-07 12:00:00.5 +0000 UTC``."""
    found = re.fullmatch(_TIME, text)
    if found is None:
        return text
    zone = (found.group(8) or "Z").replace(":", "")
    fraction = f".{found.group(7)}" if found.group(7) else ""
    shown = "+0000 UTC" if zone == "Z" else f"{zone} {zone}"
    return f"{text[:19].replace('T', ' ')}{fraction} {shown}"


def rfc3339(unix: float) -> str:
    """``2014-05-07T12:00:00+02:00``."""
    parts = time.localtime(unix)
    zone = time.strftime("%z", parts)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", parts) + shown


def ellipsis(text: str, width: int) -> str:
    """A text that is at most ``width`` wide; a long one ends in an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(identity: str) -> str:
    """The first twelve digits, without the digest's algorithm."""
    return identity.partition(":")[2][:12] if ":" in identity else identity[:12]
