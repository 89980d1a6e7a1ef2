"""``--publish`` and ``--expose``: single ports and ranges."""

from __future__ import annotations

from collections.abc import Sequence

from lading.cli.errors import Failure

Bindings = dict[str, list[dict[str, str]]]
PROTOCOLS = ("tcp", "udp", "sctp")


def exposed(values: Sequence[str]) -> dict[str, dict[str, str]]:
    """``8000-8002/udp`` as the API's set of ports; raises Failure."""
    found: dict[str, dict[str, str]] = {}
    for value in values:
        if ":" in value:
            raise Failure(f"invalid port format for --expose: {value}", code=125)
        numbers, _, protocol = value.partition("/")
        first, last = _range(numbers, f"invalid range format for --expose: {value}")
        name = _protocol(protocol or "tcp")
        found |= {f"{port}/{name}": {} for port in range(first, last + 1)}
    return found


def published(values: Sequence[str]) -> tuple[dict[str, dict[str, str]], Bindings]:
    """``-p`` values as exposed ports and bindings; raises Failure."""
    ports: dict[str, dict[str, str]] = {}
    bindings: Bindings = {}
    for value in values:
        spec = _from_pairs(value) if "=" in value else value
        for port, binding in _bindings(spec):
            ports[port] = {}
            bindings.setdefault(port, []).append(binding)
    return ports, bindings


def _from_pairs(value: str) -> str:
    """The long form ``published=8080,target=80,protocol=tcp`` in the short one."""
    table = dict(part.partition("=")[::2] for part in value.split(","))
    unknown = set(table) - {"target", "published", "protocol", "mode"}
    if unknown or not table.get("target"):
        raise Failure(f"invalid publish opts format (should be name=value): {value}", code=125)
    protocol = table.get("protocol", "tcp")
    outside = table.get("published", "")
    return f"{outside}:{table['target']}/{protocol}" if outside else f"{table['target']}/{protocol}"


def _bindings(value: str) -> list[tuple[str, dict[str, str]]]:
    bare, slash, protocol = value.partition("/")
    protocol = _protocol(protocol if slash else "tcp")
    address, outside, inside = _split(bare, value)
    if not inside:
        raise Failure(f"no port specified: {value}<empty>", code=125)
    first, last = _range(inside, f"invalid containerPort: {inside}")
    if not outside:
        return [
            (f"{port}/{protocol}", {"HostIp": address, "HostPort": ""})
            for port in range(first, last + 1)
        ]
    low, high = _range(outside, f"invalid hostPort: {outside}")
    if last - first != high - low:
        if first != last:
            raise Failure(
                f"invalid ranges specified for container and host Ports: {inside} and {outside}",
                code=125,
            )
        # One port inside, a range outside: the daemon picks from it.
        return [(f"{first}/{protocol}", {"HostIp": address, "HostPort": f"{low}-{high}"})]
    return [
        (f"{first + i}/{protocol}", {"HostIp": address, "HostPort": str(low + i)})
        for i in range(last - first + 1)
    ]


def _split(bare: str, value: str) -> tuple[str, str, str]:
    if bare.startswith("["):
        address, bracket, rest = bare[1:].partition("]")
        parts = rest.split(":")
        if not bracket or len(parts) != 3 or parts[0]:
            raise Failure(f"invalid IP address: {value}", code=125)
        return address, parts[1], parts[2]
    parts = bare.rsplit(":", 2)
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    address = parts[0]
    if address and not _is_address(address):
        raise Failure(f"invalid IP address: {address}", code=125)
    return address, parts[1], parts[2]


def _is_address(text: str) -> bool:
    import ipaddress  # late: few publish at an address

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _range(text: str, message: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise Failure(message, code=125)
    low, high = int(first), int(last if dash else first)
    if high < low or high > 65535:
        raise Failure(message, code=125)
    return low, high


def _protocol(name: str) -> str:
    if name.lower() not in PROTOCOLS:
        raise Failure(f"invalid proto: {name}", code=125)
    return name.lower()
