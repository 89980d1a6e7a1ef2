"""``RUN --mount``: what each kind takes, read and checked."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lading.build.planner import mount_fields
from lading.errors import Invalid
from lading.model.dockerfile import Instruction

_ALIASES = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "readonly": "ro",
    "readwrite": "rw",
}
_OWNERS = ("mode", "uid", "gid")
_FIELDS = {
    "bind": ("target", "source", "from", "rw", "ro"),
    "cache": ("target", "source", "from", "rw", "ro", "id", "sharing", *_OWNERS),
    "tmpfs": ("target", "size"),
    "secret": ("target", "id", "required", "env", *_OWNERS),
    "ssh": ("target", "id", "required", *_OWNERS),
}
_SHARING = ("shared", "private", "locked")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class RunMount:
    """One mount; ``mode`` -1 is the kind's own, ``size`` in bytes, 0 for no limit."""

    kind: str
    target: str
    source: str = ""
    origin: str = ""
    id: str = ""
    writable: bool = False
    sharing: str = "shared"
    required: bool = False
    environment: str = ""
    mode: int = -1
    uid: int = 0
    gid: int = 0
    size: int = 0


def mounts_of(
    instruction: Instruction, replaced: Callable[[str], str], workdir: str
) -> list[RunMount]:
    """The mounts of a RUN, with ``replaced`` for variables. Raises Invalid."""
    found: list[RunMount] = []
    for flag, text in instruction.flags:
        if flag == "mount":
            fields = {
                name: value if name == "from" else replaced(value)
                for name, value in mount_fields(text).items()
            }
            found.append(_mount(fields, len(found), workdir))
    return found


def _mount(given: Mapping[str, str], number: int, workdir: str) -> RunMount:
    fields = {_ALIASES.get(name, name): value for name, value in given.items()}
    kind = fields.pop("type", "bind")
    if kind not in _FIELDS:
        raise Invalid(f'unsupported mount type "{kind}"{_near(kind, tuple(_FIELDS))}')
    for name, value in fields.items():
        if name not in _FIELDS[kind]:
            told = f"unexpected key '{name}' in '{name}={value}' of a mount of type {kind}"
            raise Invalid(told + _near(name, _FIELDS[kind]))
    read_only = _truth(fields, "ro")
    return RunMount(
        kind,
        _target(kind, fields, number, workdir),
        source=fields.get("source", ""),
        origin=fields.get("from", ""),
        id=_id(kind, fields),
        writable=_truth(fields, "rw") if kind == "bind" else not read_only,
        sharing=_one_of("sharing", fields.get("sharing") or "shared", _SHARING),
        required=_truth(fields, "required"),
        environment=_environment(fields.get("env", "")),
        mode=_number(fields, "mode", 8, -1),
        uid=_number(fields, "uid", 10, 0),
        gid=_number(fields, "gid", 10, 0),
        size=_size(fields.get("size", "")),
    )


def _near(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"


def _id(kind: str, fields: Mapping[str, str]) -> str:
    if kind == "secret":
        if not (fields.get("id") or fields.get("target")):
            raise Invalid("a mount of type secret needs an id or a target")
        return fields.get("id") or posixpath.basename(fields["target"])
    return fields.get("id") or ("default" if kind == "ssh" else "")


def _target(kind: str, fields: Mapping[str, str], number: int, workdir: str) -> str:
    target = fields.get("target", "")
    if kind == "secret" and not target:
        # With a variable alone there is no file.
        name = posixpath.basename(_id(kind, fields))
        return "" if fields.get("env") else f"/run/secrets/{name}"
    if kind == "ssh" and not target:
        return f"/run/buildkit/ssh_agent.{number}"
    if not target:
        raise Invalid(f"a mount of type {kind} needs a target")
    target = posixpath.normpath(posixpath.join("/", workdir, target))
    if target == "/":
        raise Invalid("a mount's target cannot be /")
    return "/" + target.lstrip("/")


def _truth(fields: Mapping[str, str], name: str) -> bool:
    value = fields.get(name, "false").lower()
    if value not in ("true", "false", "1", "0", ""):
        raise Invalid(f"invalid value for {name}: '{fields[name]}' (true or false)")
    return value in ("true", "1", "")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise Invalid(f"unsupported {name} value '{value}'{_near(value, known)}")
    return value


def _number(fields: Mapping[str, str], name: str, base: int, default: int) -> int:
    if name not in fields:
        return default
    try:
        value = int(fields[name], base)
    except ValueError:
        value = -1
    if not 0 <= value < (1 << 31 if base == 10 else 0o10000):
        raise Invalid(f"invalid value for {name}: '{fields[name]}'")
    return value


def _size(text: str) -> int:
    if not text:
        return 0
    match = re.fullmatch(r"(\d+)([bkmgt]?)(?:i?b)?", text.lower())
    if match is None:
        raise Invalid(f"invalid value for size: '{text}' (bytes, or with k, m, g)")
    return int(match[1]) * _UNITS[match[2]]


def _environment(name: str) -> str:
    if name and not re.fullmatch(r"[^\s=\0]+", name):
        raise Invalid(f"invalid name of a variable: '{name}'")
    return name
