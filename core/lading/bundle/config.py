"""The parts of an OCI ``config.json`` that the backends that share it work with, checked once."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lading.errors import Invalid, Unsupported
from lading.hooks import Mount
from lading.hooks.isolation import INIT_ANNOTATION
from lading.linux import namespaces

Json = Mapping[str, Any]

#: Members of config.json that these modules cannot hold, as paths.
_UNKNOWN = (
    ("process", "scheduler"), ("process", "ioPriority"), ("process", "execCPUAffinity"),
    ("linux", "intelRdt"), ("linux", "personality"), ("linux", "memoryPolicy"),
    ("linux", "netDevices"), ("vm",), ("windows",), ("solaris",),
)  # fmt: skip

_INFINITE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit (getrlimit(2)): its name, and the kernel's number and values."""

    name: str
    number: int
    soft: int
    hard: int

    @classmethod
    def of(cls, document: Json) -> Limit:
        """Read a row of ``process.rlimits``. Raises Invalid."""
        name, soft, hard = document["type"], document["soft"], document["hard"]
        number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
        if number is None:
            raise Invalid(f'config.json: unknown resource limit "{name}"')
        values = [resource.RLIM_INFINITY if v in (-1, _INFINITE) else v for v in (soft, hard)]
        if hard != _INFINITE and hard >= 0 and not 0 <= soft <= hard:
            raise Invalid(f"config.json: {name}: the soft limit {soft} is above the hard {hard}")
        return cls(name, number, values[0], values[1])


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
    limits: Sequence[Limit] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor: str = ""
    selinux: str = ""

    @classmethod
    def of(cls, document: Json) -> Process:
        """Read ``process``. Raises Invalid for what execve could not make sense of."""
        args, env = document.get("args") or (), document.get("env") or ()
        if not args:
            raise Invalid("config.json: process.args is empty")
        if any("\0" in word for word in (*args, *env)):
            raise Invalid("config.json: process.args or process.env has a null byte")
        cwd = document.get("cwd") or "/"
        if not cwd.startswith("/"):
            raise Invalid(f'config.json: process.cwd "{cwd}" is not absolute')
        user = document.get("user") or {}
        size = document.get("consoleSize")
        return cls(
            args,
            env,
            cwd,
            user.get("uid", 0),
            user.get("gid", 0),
            user.get("additionalGids") or (),
            user.get("umask"),
            bool(document.get("terminal")),
            (size["height"], size["width"]) if size else None,
            document.get("capabilities") or {},
            [Limit.of(row) for row in document.get("rlimits") or ()],
            bool(document.get("noNewPrivileges")),
            document.get("oomScoreAdj"),
            document.get("apparmorProfile") or "",
            document.get("selinuxLabel") or "",
        )


IdMap = Sequence[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Config:
    """A whole ``config.json``; ``namespaces`` maps kinds to the path to join, "" for a new one."""

    process: Process
    read_only: bool
    mounts: Sequence[tuple[str, Mount]]
    hostname: str
    domainname: str
    namespaces: Mapping[str, str]
    uid_map: IdMap
    gid_map: IdMap
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
        try:
            return cls.of(document)
        except (KeyError, TypeError, AttributeError) as error:
            raise Invalid(f"config.json of {bundle.name}: malformed: {error!r}") from error

    @classmethod
    def of(cls, document: Json) -> Config:
        """Read the document."""
        _refuse_unknown(document)
        linux = document.get("linux") or {}
        label = linux.get("mountLabel") or ""
        return cls(
            Process.of(document.get("process") or {}),
            bool((document.get("root") or {}).get("readonly")),
            [_mount(m, label) for m in document.get("mounts") or ()],
            document.get("hostname") or "",
            document.get("domainname") or "",
            _namespaces(linux),
            _id_map(linux.get("uidMappings")),
            _id_map(linux.get("gidMappings")),
            linux,
            document.get("hooks") or {},
            document.get("annotations") or {},
        )

    @property
    def remapped(self) -> bool:
        """Whether the container is in a user namespace, its own or one that it joins."""
        return "user" in self.namespaces

    @property
    def reaping_init(self) -> bool:
        """Whether process 1 is :mod:`lading.bundle.reaper`, and the user's program its child."""
        return self.annotations.get(INIT_ANNOTATION) == "true"

    def flags(self, kinds: Sequence[str]) -> int:
        """The clone(2) flags of those kinds that are to be made new."""
        return sum(namespaces.KINDS[k][0] for k in kinds if self.namespaces.get(k) == "")

    def joined(self, kinds: Sequence[str]) -> list[tuple[str, str]]:
        """(kind, path) of those kinds that are to be joined, in that order."""
        return [(k, self.namespaces[k]) for k in kinds if self.namespaces.get(k)]

    def outside(self, uid: int) -> int:
        """The host's id of a user of the container's, or -1 when it has none."""
        if not self.uid_map:
            return -1 if self.remapped else uid
        for inside, outside, size in self.uid_map:
            if inside <= uid < inside + size:
                return outside + uid - inside
        return -1


def _refuse_unknown(document: Json) -> None:
    for path in _UNKNOWN:
        at: Any = document
        for member in path:
            at = (at or {}).get(member)
        if at:
            raise Unsupported(f"config.json: {'.'.join(path)} is not supported")


def _namespaces(linux: Json) -> Mapping[str, str]:
    kinds = {n["type"]: n.get("path") or "" for n in linux.get("namespaces") or ()}
    if unknown := set(kinds) - set(namespaces.KINDS):
        raise Unsupported(f"namespaces of type {', '.join(sorted(unknown))} are not known")
    for kind in set(kinds) - namespaces.known():
        raise Unsupported(f"this kernel has no {kind} namespaces")
    if kinds.get("mount", "missing"):
        raise Unsupported("a container needs a new mount namespace")
    if kinds.get("user") == "" and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise Invalid("config.json: a new user namespace needs uidMappings and gidMappings")
    return kinds


def _id_map(rows: Sequence[Json] | None) -> IdMap:
    return [(row["containerID"], row["hostID"], row["size"]) for row in rows or ()]


def _mount(document: Json, label: str) -> tuple[str, Mount]:
    options = tuple(document.get("options") or ())
    kind = document.get("type") or ("bind" if {"bind", "rbind"} & set(options) else "")
    if document.get("uidMappings") or document.get("gidMappings"):
        raise Unsupported("config.json: id mappings of single mounts are not supported")
    if label and kind in ("tmpfs", "devpts"):
        options = (*options, f'context="{label}"')
    return document["destination"], Mount(kind, document.get("source") or "", options)
