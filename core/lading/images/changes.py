"""Dockerfile instructions applied to an image config: ``commit --change``, ``import --change``.

The builder uses the same functions, so an instruction means the same everywhere. A config here is
the ``config`` member of an OCI image config, a dict with Docker's member names; every function
returns a new one.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lading.errors import Invalid

Config = dict[str, Any]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


def apply_changes(config: Mapping[str, Any], changes: Iterable[str]) -> Config:
    """Apply instructions, one per item (or line). Raises Invalid naming the instruction."""
    result = dict(config)
    for change in changes:
        for line in change.splitlines():
            if not (text := line.strip()) or text.startswith("#"):
                continue
            name, _, rest = text.partition(" ")
            instruction = _INSTRUCTIONS.get(name.upper())
            if instruction is None:
                allowed = ", ".join(sorted(_INSTRUCTIONS))
                raise Invalid(f"{name} is not a valid change command", hint=f"valid: {allowed}")
            if not rest.strip():
                raise Invalid(f"{name.upper()} requires at least one argument")
            result = instruction(result, rest.strip())
    return result


def exec_form(text: str) -> list[str] | None:
    """The words of ``["a", "b"]``; None for what is not in that form."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def command(config: Mapping[str, Any], text: str) -> list[str]:
    """The words to execute: exec form as it is, shell form through the config's shell."""
    words = exec_form(text)
    return [*(config.get("Shell") or ["/bin/sh", "-c"]), text] if words is None else words


def pairs(text: str, instruction: str) -> list[tuple[str, str]]:
    """``KEY=value ...`` with shell quoting, or the old ``KEY value`` form. Raises Invalid."""
    first = re.match(r"[^\s=]+", text)
    if first is not None and not text[first.end() :].startswith("="):
        value = text[first.end() :].strip()
        if not value:
            raise Invalid(f"{instruction} must have two arguments")
        return [(first.group(), value)]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Invalid(f"{instruction}: {error}") from error
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Invalid(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        found.append((key, value))
    return found


def set_environment(config: Config, rows: Iterable[tuple[str, str]]) -> Config:
    """Set variables, keeping the order of those that are there."""
    values = dict(row.partition("=")[::2] for row in config.get("Env") or ())
    values |= dict(rows)
    return {**config, "Env": [f"{k}={v}" for k, v in values.items()]}


def _env(config: Config, text: str) -> Config:
    return set_environment(config, pairs(text, "ENV"))


def _label(config: Config, text: str) -> Config:
    return {**config, "Labels": {**(config.get("Labels") or {}), **dict(pairs(text, "LABEL"))}}


def _cmd(config: Config, text: str) -> Config:
    return {**config, "Cmd": command(config, text)}


def _entrypoint(config: Config, text: str) -> Config:
    return {**config, "Entrypoint": command(config, text)}


def expose(config: Config, ports: Iterable[str]) -> Config:
    """Add ports or ranges, ``80``, ``80/udp``, ``8000-8010``. Raises Invalid."""
    found = dict(config.get("ExposedPorts") or {})
    for port in ports:
        number, _, protocol = port.partition("/")
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", number)
        protocol = (protocol or "tcp").lower()
        if match is None or protocol not in ("tcp", "udp", "sctp"):
            raise Invalid(f"invalid containerPort: {port}")
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        if not 0 < low <= high <= 65535:
            raise Invalid(f"invalid range format for containerPort: {port}")
        found |= {f"{n}/{protocol}": {} for n in range(low, high + 1)}
    return {**config, "ExposedPorts": found}


def _volume(config: Config, text: str) -> Config:
    words = exec_form(text)
    if words is None:
        words = text.split()
    if "" in words:
        raise Invalid("VOLUME specified can not be an empty string")
    return {**config, "Volumes": {**(config.get("Volumes") or {}), **{w: {} for w in words}}}


def workdir(config: Config, path: str) -> Config:
    """Set the working directory, relative to the present one."""
    import posixpath

    base = config.get("WorkingDir") or "/"
    return {**config, "WorkingDir": posixpath.normpath(posixpath.join("/", base, path))}


def _onbuild(config: Config, text: str) -> Config:
    name = text.split(None, 1)[0].upper()
    if name in ("ONBUILD", "FROM", "MAINTAINER"):
        raise Invalid(
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
            if name == "ONBUILD"
            else f"{name} isn't allowed as an ONBUILD trigger"
        )
    return {**config, "OnBuild": [*(config.get("OnBuild") or ()), text]}


def _shell(config: Config, text: str) -> Config:
    words = exec_form(text)
    if not words:
        raise Invalid("SHELL requires the arguments to be in JSON form")
    return {**config, "Shell": words}


def _healthcheck(config: Config, text: str) -> Config:
    words = text.split(None, 1)
    check: dict[str, Any] = {}
    rest = text
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        name, _, value = flag[2:].partition("=")
        if name == "retries":
            if not value.isdigit() or int(value) < 1:
                raise Invalid(f"--retries must be at least 1 (not {value})")
            check["Retries"] = int(value)
        elif name in _HEALTH_TIMES:
            check[_HEALTH_TIMES[name]] = duration(value, f"--{name}")
        else:
            raise Invalid(
                f"Unknown flag: {name}",
                hint="--interval --timeout --start-period --start-interval --retries",
            )
    kind, _, arguments = rest.partition(" ")
    if kind.upper() == "NONE":
        return {**config, "Healthcheck": {"Test": ["NONE"]}}
    if kind.upper() != "CMD" or not arguments.strip():
        raise Invalid(f'Unknown type "{words[0]}" in HEALTHCHECK (try CMD)')
    exec_words = exec_form(arguments.strip())
    test = ["CMD-SHELL", arguments.strip()] if exec_words is None else ["CMD", *exec_words]
    return {**config, "Healthcheck": {"Test": test, **check}}


_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def duration(text: str, what: str) -> int:
    """Go's duration (``1m30s``) in nanoseconds. Raises Invalid."""
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise Invalid(f'{what}: invalid duration "{text}"', hint="for example 30s or 1m30s")
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


_INSTRUCTIONS: dict[str, Callable[[Config, str], Config]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": lambda config, text: expose(config, text.split()),
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": lambda config, text: {**config, "StopSignal": text},
    "USER": lambda config, text: {**config, "User": text},
    "VOLUME": _volume,
    "WORKDIR": workdir,
}
