"""The parts of an OCI ``config.json`` that this backend works with, checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lading.errors import Invalid, Unsupported
from lading.hooks import Mount
from lading.linux import namespaces

Json = Mapping[str, Any]

#: Set to "true" by the core when the container wants an init that reaps.
INIT_ANNOTATION = "org.lading.init"


@dataclass(frozen=True, slots=True)
class Process:
    """``process``: what is executed, and as whom."""

    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    umask: int | None = None
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    capabilities: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rlimits: Sequence[Json] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor: str = ""
    selinux: str = ""

    @classmethod
    def of(cls, document: Json) -> Process:
        """Read ``process``. Raises Invalid for what execve could not make sense of."""
        args = document.get("args") or ()
        if not args:
            raise Invalid("config.json: process.args is empty")
        cwd = document.get("cwd") or "/"
        if not cwd.startswith("/"):
            raise Invalid(f'config.json: process.cwd "{cwd}" is not absolute')
        user = document.get("user") or {}
        size = document.get("consoleSize")
        return cls(
            args,
            document.get("env") or (),
            cwd,
            user.get("uid", 0),
            user.get("gid", 0),
            user.get("additionalGids") or (),
            user.get("umask"),
            bool(document.get("terminal")),
            (size["height"], size["width"]) if size else None,
            document.get("capabilities") or {},
            document.get("rlimits") or (),
            bool(document.get("noNewPrivileges")),
            document.get("oomScoreAdj"),
            document.get("apparmorProfile") or "",
            document.get("selinuxLabel") or "",
        )


@dataclass(frozen=True, slots=True)
class Config:
    """A whole ``config.json``; ``namespaces`` maps kinds to the path to join, "" for a new one."""

    process: Process
    read_only: bool
    mounts: Sequence[tuple[str, Mount]]
    hostname: str
    domainname: str
    namespaces: Mapping[str, str]
    linux: Json
    hooks: Json
    annotations: Json

    @classmethod
    def read(cls, bundle: Path) -> Config:
        """Read it from a bundle. Raises Invalid, and Unsupported for what cannot be held."""
        try:
            document = json.loads((bundle / "config.json").read_bytes())
        except ValueError as error:
            raise Invalid(f"config.json of {bundle.name}: {error}") from error
        linux = document.get("linux") or {}
        kinds = {n["type"]: n.get("path") or "" for n in linux.get("namespaces") or ()}
        if unknown := set(kinds) - set(namespaces.KINDS):
            raise Unsupported(f"namespaces of type {', '.join(sorted(unknown))} are not known")
        if "mount" not in kinds or kinds["mount"]:
            raise Unsupported("a container needs a new mount namespace")
        return cls(
            Process.of(document.get("process") or {}),
            bool((document.get("root") or {}).get("readonly")),
            [_mount(m) for m in document.get("mounts") or ()],
            document.get("hostname") or "",
            document.get("domainname") or "",
            kinds,
            linux,
            document.get("hooks") or {},
            document.get("annotations") or {},
        )

    @property
    def new_user_namespace(self) -> bool:
        """Whether the container gets a user namespace of its own."""
        return self.namespaces.get("user") == ""

    @property
    def reaping_init(self) -> bool:
        """Whether process 1 is this backend's, and the user's program its child."""
        return self.annotations.get(INIT_ANNOTATION) == "true"

    def flags(self, kinds: Sequence[str]) -> int:
        """The clone(2) flags of those kinds that are to be made new."""
        return sum(namespaces.KINDS[k][0] for k in kinds if self.namespaces.get(k) == "")

    def joined(self, kinds: Sequence[str]) -> list[tuple[str, str]]:
        """(kind, path) of those kinds that are to be joined, in that order."""
        return [(k, self.namespaces[k]) for k in kinds if self.namespaces.get(k)]


def _mount(document: Json) -> tuple[str, Mount]:
    options = tuple(document.get("options") or ())
    kind = document.get("type") or ("bind" if {"bind", "rbind"} & set(options) else "")
    return document["destination"], Mount(kind, document.get("source") or "", options)
