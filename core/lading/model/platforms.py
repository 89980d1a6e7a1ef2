"""Platforms as images name them: ``os/architecture[/variant]``, in Go's words."""

from __future__ import annotations

import platform as host
from dataclasses import dataclass

from lading.errors import Invalid

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}
_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd", "wasip1"})


def architecture() -> str:
    """This host's."""
    machine = host.machine()
    return _ARCHITECTURES.get(machine, machine)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A platform that somebody asked for; without ``variant`` any one will do."""

    system: str
    architecture: str
    variant: str = ""

    def accepts(self, system: str, architecture: str, variant: str) -> bool:
        """Whether an image for that platform is one for this."""
        same = (system, architecture) == (self.system, self.architecture)
        return same and (not self.variant or variant in ("", self.variant))

    def __str__(self) -> str:
        return "/".join(part for part in (self.system, self.architecture, self.variant) if part)


def parse(text: str) -> Wanted:
    """Read ``[os/]architecture[/variant]`` or ``os``; "" is this host's. Raises Invalid."""
    parts = text.lower().split("/") if text else []
    if not all(parts) or len(parts) > 3:
        raise Invalid(f'"{text}" is not a platform', hint="os/architecture[/variant]")
    if not parts:
        return Wanted("linux", architecture())
    if len(parts) == 1:
        known = parts[0] in _SYSTEMS
        return Wanted(parts[0], architecture()) if known else Wanted("linux", _named(parts[0]))
    return Wanted(parts[0], _named(parts[1]), "".join(parts[2:]))


def _named(machine: str) -> str:
    return _ARCHITECTURES.get(machine, machine)
