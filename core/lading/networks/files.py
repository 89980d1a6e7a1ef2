"""Contents of ``/etc/hosts`` and ``/etc/resolv.conf``, and the variables that links add."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lading.errors import Invalid
from lading.networks.ports import exposed
from lading.networks.records import Link

HOST_GATEWAY = "host-gateway"
RESOLV_CONF = Path("/etc/resolv.conf")

#: Where systemd-resolved has the servers behind its stub on 127.0.0.53.
RESOLVED = Path("/run/systemd/resolve/resolv.conf")

#: What is asked when the host has none that a container can reach.
PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")

LOCALHOST = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


@dataclass(frozen=True, slots=True)
class Resolver:
    """A ``resolv.conf``."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()

    def render(self) -> str:
        """Its text."""
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search and list(self.search) != ["."]:
            lines.append("search " + " ".join(self.search))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "".join(f"{line}\n" for line in lines)


def read_resolver(path: Path = RESOLV_CONF) -> Resolver:
    """The host's ``resolv.conf``; an empty one when there is none."""
    try:
        found = path.stat()
        return _parsed(path, found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError:
        return Resolver()


@lru_cache(maxsize=8)
def _parsed(path: Path, inode: int, changed: int, size: int) -> Resolver:
    """Read once for each version of the file: every start of a container asks for it."""
    lines = path.read_text(errors="replace").splitlines()
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in lines:
        words = line.split()
        match words[:1]:
            case ["nameserver"] if len(words) > 1:
                servers.append(words[1])
            case ["search"] | ["domain"]:
                search = words[1:]
            case ["options"]:
                options += words[1:]
    return Resolver(servers, search, options)


def host_resolver(path: Path = RESOLV_CONF, resolved: Path = RESOLVED) -> Resolver:
    """The host's resolver as a container can use it: without servers on the host's loopback."""
    found = read_resolver(path)
    if found.servers == ["127.0.0.53"] and resolved.exists():
        found = read_resolver(resolved)
    servers = [s for s in found.servers if not _is_loopback(s)]
    return Resolver(servers or PUBLIC_SERVERS, found.search, found.options)


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


def extra_hosts(rows: Iterable[str], gateway: str) -> list[tuple[str, str]]:
    """(address, name) of ``--add-host NAME:ADDRESS``. Raises Invalid."""
    found = []
    for row in rows:
        separator = "=" if "=" in row else ":"
        name, _, address = row.partition(separator)
        if address == HOST_GATEWAY:
            if not gateway:
                raise Invalid(f'extra host "{row}": the host has no gateway address here')
            address = gateway
        try:
            address = str(ipaddress.ip_address(address.strip("[]")))
        except ValueError as error:
            raise Invalid(f'extra host "{row}": "{address}" is not an IP address') from error
        if not name:
            raise Invalid(f'extra host "{row}" has no name')
        found.append((address, name))
    return found


def render_hosts(rows: Iterable[tuple[str, str]], base: str = "") -> str:
    """``/etc/hosts`` with the usual lines (or ``base``) and then (address, names)."""
    text = base or "".join(f"{address}\t{names}\n" for address, names in LOCALHOST)
    if text and not text.endswith("\n"):
        text += "\n"
    return text + "".join(f"{address}\t{names}\n" for address, names in rows)


def link_variables(parent: str, link: Link, address: str) -> list[str]:
    """The environment of a legacy link: where the linked container's ports are, and its own."""
    prefix = link.alias.replace("-", "_").upper()
    ports = sorted(exposed(link.config.exposed_ports))
    found = [f"{prefix}_NAME=/{parent}/{link.alias}"]
    for position, (port, protocol) in enumerate(ports):
        url = f"{protocol}://{address}:{port}"
        key = f"{prefix}_PORT_{port}_{protocol.upper()}"
        if position == 0:
            found.append(f"{prefix}_PORT={url}")
        found += [
            f"{key}={url}",
            f"{key}_ADDR={address}",
            f"{key}_PORT={port}",
            f"{key}_PROTO={protocol}",
        ]
    for row in link.config.env:
        name, equals, value = row.partition("=")
        # What every container has says nothing about this one.
        if equals and name not in ("HOME", "PATH"):
            found.append(f"{prefix}_ENV_{name}={value}")
    return found
