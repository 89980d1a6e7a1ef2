"""Settings under /proc/sys/net, which show the calling thread's network namespace."""

from __future__ import annotations

import logging
from pathlib import Path

NET = Path("/proc/sys/net")

log = logging.getLogger(__name__)


def read(name: str) -> str:
    """A setting, "" when the kernel lacks it."""
    try:
        return (NET / name).read_text().strip()
    except OSError:
        return ""


def write(name: str, value: str) -> bool:
    """Change a setting unless it has the value; False when that failed, with a line in the log."""
    if read(name) == value:
        return True
    try:
        (NET / name).write_text(value)
    except OSError as error:
        log.warning('set "%s" to %s: %s', f"net/{name}", value, error.strerror)
        return False
    return True


def quiet_ipv6(interface: str, *, enabled: bool) -> None:
    """IPv6 on an interface as the addresses need it: no autoconfiguration, or none at all."""
    conf = NET / "ipv6/conf" / interface
    values = {"disable_ipv6": "0", "accept_ra": "0", "accept_dad": "0"}
    for name, value in values.items() if enabled else (("disable_ipv6", "1"),):
        try:
            (conf / name).write_text(value)
        except OSError:
            # A kernel without IPv6; an address that needs it fails by itself.
            return
