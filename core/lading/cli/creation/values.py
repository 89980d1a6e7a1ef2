"""Values of single flags: each function checks and turns one text into what the API takes.

They raise ValueError; the parser adds the flag's name.
"""

from __future__ import annotations

import re

from lading.cli.output.units import size_in_bytes

_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}")
ULIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
        *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)


def attachable(value: str) -> str:
    """``stdin``, ``stdout`` or ``stderr``."""
    name = value.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return name


def key_value(value: str) -> str:
    """``key=value``."""
    if not value.partition("=")[0].strip():
        raise ValueError(f"invalid empty key: {value!r}")
    return value


def log_option(value: str) -> str:
    """``key=value`` with both sides."""
    if "=" not in value:
        raise ValueError(f'"{value}" is not of the form key=value')
    return value


def cpus(value: str) -> int:
    """``1.5`` as billionths of a CPU."""
    try:
        billionths = float(value) * 1e9
    except ValueError:
        raise ValueError(f"failed to parse {value} as a rational number") from None
    if billionths != int(billionths):
        raise ValueError("value is too precise")
    return int(billionths)


def ulimit(value: str) -> dict[str, object]:
    """``nofile=1024:2048``."""
    name, equals, numbers = value.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {value}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft, colon, hard = numbers.partition(":")
    try:
        low, high = int(soft), int(hard if colon else soft)
    except ValueError:
        raise ValueError(f"invalid ulimit argument: {value}") from None
    if high != -1 and (low > high or low == -1):
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
        )
    return {"Name": name, "Soft": low, "Hard": high}


def device_rule(value: str) -> str:
    """``c 1:3 rwm``."""
    if not _RULE.fullmatch(value):
        raise ValueError(f"invalid device cgroup format '{value}'")
    return value


def weighted_device(value: str) -> dict[str, object]:
    """``/dev/sda:500``."""
    path, weight = _device_and_number(value, "weight")
    if weight and not 10 <= weight <= 1000:
        raise ValueError(f"invalid weight for device: {value}")
    return {"Path": path, "Weight": weight}


def rate_in_bytes(value: str) -> dict[str, object]:
    """``/dev/sda:1mb``."""
    path, _, rate = value.partition(":")
    _check_device(path, rate, value)
    try:
        return {"Path": path, "Rate": size_in_bytes(rate)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {value}. The correct format is "
            "<device-path>:<number>[<unit>]"
        ) from None


def rate_in_operations(value: str) -> dict[str, object]:
    """``/dev/sda:1000``."""
    path, rate = _device_and_number(value, "rate")
    return {"Path": path, "Rate": rate}


def _device_and_number(value: str, what: str) -> tuple[str, int]:
    path, _, amount = value.partition(":")
    _check_device(path, amount, value)
    if not amount.isdigit():
        raise ValueError(f"invalid {what} for device: {value}")
    return path, int(amount)


def _check_device(path: str, amount: str, value: str) -> None:
    if not amount:
        raise ValueError(f"bad format: {value}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {value}")


def extra_host(value: str) -> str:
    """``name:address``; ``name=address`` too."""
    name, separator, address = value.partition("=" if "=" in value else ":")
    if not separator or not name or not address:
        raise ValueError(f'bad format for add-host: "{value}"')
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if bare != "host-gateway" and not _is_address(bare):
        raise ValueError(f'invalid IP address in add-host: "{bare}"')
    return f"{name}:{bare}"


def _is_address(value: str) -> bool:
    import ipaddress  # late: only `--add-host` needs it

    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def link(value: str) -> str:
    """``name[:alias]``."""
    parts = value.split(":")
    if not value or len(parts) > 2:
        raise ValueError(f"bad format for links: {value}")
    return value if len(parts) == 2 else f"{value}:{value}"


def device(value: str) -> dict[str, str]:
    """``/dev/fuse:/dev/inside:rwm`` as the API's mapping."""
    parts = value.split(":")
    outside, inside, access = parts[0], "", "rwm"
    if len(parts) == 2 and _is_access(parts[1]):
        access = parts[1]
    elif len(parts) == 2:
        inside = parts[1]
    elif len(parts) == 3:
        inside, access = parts[1:]
    elif len(parts) != 1:
        raise ValueError(f"invalid device specification: {value}")
    if not _is_access(access) or not outside.startswith("/"):
        raise ValueError(
            f"{value} is not an absolute path"
            if outside[:1] != "/"
            else f"bad mode specified: {access}"
        )
    return {
        "PathOnHost": outside,
        "PathInContainer": inside or outside,
        "CgroupPermissions": access,
    }


def _is_access(value: str) -> bool:
    return bool(value) and set(value) <= set("rwm") and len(set(value)) == len(value)


def pairs(values: list[str]) -> dict[str, str]:
    """``key=value`` texts as a table; a bare key has an empty value."""
    return {key: value for key, _, value in (text.partition("=") for text in values)}
