"""Dockerfile instructions applied to an image config: ``commit --change``, ``import --change``.

The builder uses the same functions, so an instruction means the same everywhere. A config here is
the ``config`` member of an OCI image config, a dict with Docker's member names; every function
returns a new one.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.errors import Invalid
from lading.model.dockerfile import parse, split_flags
from lading.model.substitution import split_words, substitute

Config = dict[str, Any]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SIGNAL = re.compile(
    r"0*[1-9]\d?|(?:SIG)?(?:RTM(?:IN(?:\+\d+)?|AX(?:-\d+)?)|"
    + "|".join(s.name.removeprefix("SIG") for s in signal.Signals)
    + ")"
)
_UNITS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


#: Instructions whose words have their variables replaced.
_SUBSTITUTED = ("EXPOSE", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")


def apply_changes(config: Mapping[str, Any], changes: Iterable[str]) -> Config:
    """Apply instructions, one or more per item. Raises Invalid naming the instruction."""
    text = "\n".join(changes)
    if not text.strip():
        return dict(config)
    change = Change(dict(config))
    for instruction in parse(text.encode(), "changes").instructions:
        if instruction.name not in ("ENV", "LABEL", *_INSTRUCTIONS):
            allowed = ", ".join(sorted(("ENV", "LABEL", *_INSTRUCTIONS)))
            raise Invalid(f"{instruction.name} is not a valid change command (valid: {allowed})")
        try:
            change.apply(instruction.name, instruction.rest)
        except Invalid as error:
            raise instruction.wrong(str(error)) from error
    return change.config


@dataclass
class Change:
    """A config while instructions change it; ``arguments`` are variables beside its own."""

    config: Config
    arguments: dict[str, str] = field(default_factory=dict)
    escape: str = "\\"
    own_command: bool = False

    def values(self) -> dict[str, str]:
        """All variables that an instruction sees: ENV before ARG."""
        environment = dict(r.partition("=")[::2] for r in self.config.get("Env") or ())
        return {**self.arguments, **environment}

    def replaced(self, text: str) -> str:
        """Text with its variables, and without its quotes."""
        return substitute(text, self.values(), escape=self.escape)

    def apply(self, name: str, text: str) -> str:
        """Apply an instruction; what it says with its variables replaced. Raises Invalid."""
        if name in ("ENV", "LABEL"):
            return self._pairs(name, text)
        if name in _SUBSTITUTED:
            keep = name == "VOLUME" and text.startswith("[")
            text = substitute(text, self.values(), escape=self.escape, keep_quotes=keep)
            if not text.strip() and name not in ("EXPOSE", "USER"):
                raise Invalid(f"{name} requires at least one argument")
        self.config = _INSTRUCTIONS[name](self.config, text)
        if name == "CMD":
            self.own_command = True
        if name == "ENTRYPOINT" and not self.own_command:
            # The base image's command was meant for its own entry point.
            self.config.pop("Cmd", None)
        shown: Any = text
        if name in ("CMD", "ENTRYPOINT"):
            shown = self.config.get(name.capitalize(), [])
        if name == "EXPOSE":
            shown = " ".join(sorted(text.split()))
        if name in ("SHELL", "VOLUME"):
            shown = f"[{' '.join(exec_form(text) or text.split())}]"
        if isinstance(shown, list):
            shown = "[" + " ".join(json.dumps(w, ensure_ascii=False) for w in shown) + "]"
        return f"{name} {shown}"

    def _pairs(self, name: str, text: str) -> str:
        words = split_words(text, self.escape)
        if "=" not in words[0]:
            key, _, value = text.partition(" ")
            if not value.strip():
                raise Invalid(f"{name} must have two arguments")
            rows = [(self.replaced(key), self.replaced(value.strip()))]
        else:
            rows = []
            for word in words:
                key, equals, value = word.partition("=")
                if not equals:
                    raise Invalid(
                        f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
                    )
                if not key:
                    raise Invalid(f"{name} names can not be blank")
                rows.append((self.replaced(key), self.replaced(value)))
        if name == "ENV":
            self.config = set_environment(self.config, rows)
        else:
            labels = {**(self.config.get("Labels") or {}), **dict(rows)}
            self.config = {**self.config, "Labels": labels}
        return f"{name} " + " ".join(f"{k}={v}" for k, v in rows)


def exec_form(text: str) -> list[str] | None:
    """The words of ``["a", "b"]``; None for what is not in that form. Raises Invalid."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    if not isinstance(words, list):
        return None
    if not all(isinstance(w, str) for w in words):
        raise Invalid("when using JSON array syntax, arrays must be comprised of strings only")
    return words


def command(config: Mapping[str, Any], text: str) -> list[str]:
    """The words to execute: exec form as it is, shell form through the config's shell.

    Without any text it is the shell alone, as in Docker.
    """
    words = exec_form(text)
    shell = config.get("Shell") or ["/bin/sh", "-c"]
    return [*shell, *([text] if text else ())] if words is None else words


def _entry_point(config: Config, text: str) -> Config:
    """No words, in whichever form, take away that of the base image."""
    changed = {name: value for name, value in config.items() if name != "Entrypoint"}
    words = command(config, text) if text else []
    return {**changed, "Entrypoint": words} if words else changed


def set_environment(config: Config, rows: Iterable[tuple[str, str]]) -> Config:
    """Set variables, keeping the order of those that are there."""
    values = dict(row.partition("=")[::2] for row in config.get("Env") or ())
    values |= dict(rows)
    return {**config, "Env": [f"{k}={v}" for k, v in values.items()]}


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
    if not words:
        raise Invalid("VOLUME requires at least one argument")
    if "" in words:
        raise Invalid("VOLUME specified can not be an empty string")
    return {**config, "Volumes": {**(config.get("Volumes") or {}), **{w: {} for w in words}}}


def workdir(config: Config, path: str) -> Config:
    """Set the working directory, relative to the present one."""
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


def _stop_signal(config: Config, text: str) -> Config:
    if not _SIGNAL.fullmatch(text.upper()):
        raise Invalid(f"Invalid signal: {text}")
    return {**config, "StopSignal": text}


def _healthcheck(config: Config, text: str) -> Config:
    flags, rest = split_flags(text)
    check: dict[str, Any] = {}
    for name, value in flags:
        if name == "retries":
            if not value.isdigit():
                raise Invalid(f"--retries cannot be negative or no number (not {value})")
            check["Retries"] = int(value)
        elif name in _HEALTH_TIMES:
            check[_HEALTH_TIMES[name]] = found = duration(value, f"--{name}")
            if 0 < found < 10**6:
                raise Invalid(f'Interval "{name}" cannot be less than 1ms')
        else:
            known = " ".join(f"--{name}" for name in (*_HEALTH_TIMES, "retries"))
            raise Invalid(f"Unknown flag: --{name} ({known})")
    kind, *arguments = rest.split(None, 1) or [""]
    if kind.upper() == "NONE":
        if arguments or flags:
            raise Invalid("HEALTHCHECK NONE takes no arguments")
        return {**config, "Healthcheck": {"Test": ["NONE"]}}
    if kind.upper() != "CMD":
        raise Invalid(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    if not arguments:
        raise Invalid("Missing command after HEALTHCHECK CMD")
    words = exec_form(arguments[0].strip())
    test = ["CMD-SHELL", arguments[0].strip()] if words is None else ["CMD", *words]
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
    "CMD": lambda config, text: {**config, "Cmd": command(config, text)},
    "ENTRYPOINT": _entry_point,
    "EXPOSE": lambda config, text: expose(config, text.split()),
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": lambda config, text: {**config, "User": text},
    "VOLUME": _volume,
    "WORKDIR": workdir,
}
