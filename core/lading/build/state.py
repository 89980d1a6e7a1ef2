"""What a stage has come to: an image, its settings, and the values of its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lading.build.parser import Instruction
from lading.build.substitution import split_words, substitute
from lading.errors import Invalid
from lading.images import Image
from lading.images.changes import apply_changes, set_environment

#: What may be given as a build argument without an ARG.
PREDEFINED = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

#: Instructions whose words have their variables replaced.
_SUBSTITUTED = ("EXPOSE", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")


@dataclass
class State:
    """One stage while it is built; ``image`` None is scratch."""

    image: Image | None
    settings: dict[str, Any]
    globals: Mapping[str, str]
    given: Mapping[str, str | None]
    escape: str
    arguments: dict[str, str] = field(default_factory=dict)
    author: str = ""
    own_command: bool = False

    @classmethod
    def of(
        cls,
        image: Image | None,
        globals: Mapping[str, str],
        given: Mapping[str, str | None],
        escape: str,
    ) -> State:
        """The beginning of a stage."""
        settings: dict[str, Any] = {}
        if image is not None:
            settings = dict(msgspec.json.decode(image.config_bytes).get("config") or {})
        return cls(image, settings, globals, given, escape)

    @property
    def identity(self) -> str:
        """The image's id, "" for scratch."""
        return self.image.id if self.image else ""

    def values(self) -> dict[str, str]:
        """All variables that an instruction sees: ENV before ARG."""
        environment = dict(r.partition("=")[::2] for r in self.settings.get("Env") or ())
        return {**self.arguments, **environment}

    def replaced(self, text: str) -> str:
        """Text with its variables, and without its quotes."""
        return substitute(text, self.values(), escape=self.escape)

    def run_arguments(self) -> list[str]:
        """Build arguments for the environment of RUN, sorted; ENV wins over them."""
        environment = {r.partition("=")[0] for r in self.settings.get("Env") or ()}
        return sorted(f"{k}={v}" for k, v in self.arguments.items() if k not in environment)

    def proxies(self) -> list[str]:
        """Predefined arguments that were given: for the environment only, not for the cache."""
        return [
            f"{k}={v}"
            for k, v in self.given.items()
            if v is not None and k.upper() in PREDEFINED and k not in self.arguments
        ]

    def declare(self, text: str) -> None:
        """ARG: the value given, else the default, else that before the first FROM."""
        for word in split_words(text, self.escape):
            name, equals, default = word.partition("=")
            if not name:
                raise Invalid("ARG names can not be blank")
            given = self.given.get(name)
            if given is not None:
                self.arguments[name] = given
            elif equals:
                self.arguments[name] = self.replaced(default)
            elif name in self.globals:
                self.arguments[name] = self.globals[name]

    def apply(self, instruction: Instruction) -> str:
        """An instruction that only changes settings; what it says with its variables replaced."""
        name, text = instruction.name, instruction.rest
        if name == "MAINTAINER":
            self.author = self.replaced(text)
            return f"MAINTAINER {self.author}"
        if name in ("ENV", "LABEL"):
            return self._pairs(name, text)
        if name in _SUBSTITUTED:
            keep = name == "VOLUME" and text.startswith("[")
            text = substitute(text, self.values(), escape=self.escape, keep_quotes=keep)
            if not text.strip():
                raise Invalid(f"{name} requires at least one argument")
        if name == "CMD":
            self.own_command = True
        if name in ("CMD", "ENTRYPOINT") and text in ("", "[]"):
            key = "Cmd" if name == "CMD" else "Entrypoint"
            self.settings = {**self.settings, key: []}
        else:
            self.settings = apply_changes(self.settings, [f"{name} {text}"])
        if name == "ENTRYPOINT" and not self.own_command:
            # The base image's command was meant for its own entry point.
            self.settings.pop("Cmd", None)
        shown = self.settings[name.capitalize()] if name in ("CMD", "ENTRYPOINT") else text
        if isinstance(shown, list):
            shown = "[" + " ".join(msgspec.json.encode(w).decode() for w in shown) + "]"
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
            self.settings = set_environment(self.settings, rows)
        else:
            labels = {**(self.settings.get("Labels") or {}), **dict(rows)}
            self.settings = {**self.settings, "Labels": labels}
        return f"{name} " + " ".join(f"{k}={v}" for k, v in rows)
