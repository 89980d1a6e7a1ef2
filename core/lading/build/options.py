"""What a client asks of a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lading.errors import Invalid
from lading.model.docker import AuthConfig, HostConfig


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """``POST /build``; a build argument that is None takes nothing away from the default.

    ``cache_from`` are images whose history may stand for steps; without ``cache_own`` only they,
    and what they stand on. ``classic``: told as dockerd does, errors of commands in red.
    With ``prefixes`` stages that run side by side tell at once what they do, each line marked.
    ``session`` is how the client names the connections that it offers secrets on.
    """

    tags: Sequence[str] = ()
    dockerfile: str = ""
    remote: str = ""
    quiet: bool = False
    no_cache: bool = False
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    squash: bool = False
    cache_from: Sequence[str] = ()
    cache_own: bool = True
    classic: bool = False
    prefixes: bool = False
    marked: bool = False
    target: str = ""
    allowed: Sequence[str] = ()
    session: str = ""
    platform: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    host: HostConfig = field(default_factory=HostConfig)
    credentials: Mapping[str, AuthConfig] = field(default_factory=dict)

    @property
    def epoch(self) -> int | None:
        """The build argument SOURCE_DATE_EPOCH, in seconds. Raises Invalid."""
        text = self.arguments.get("SOURCE_DATE_EPOCH")
        if not text:
            return None
        if not text.isdigit() or int(text) >= 1 << 34:
            raise Invalid(f"SOURCE_DATE_EPOCH: {text!r} is not a number of seconds since 1970")
        return int(text)
