"""What a stage has come to: an image, its settings, and the values of its variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lading.build.planner import PREDEFINED
from lading.containers.merge import PATH
from lading.errors import Invalid
from lading.images import Image
from lading.images.changes import Change
from lading.model.dockerfile import Instruction
from lading.model.substitution import split_words


@dataclass
class State:
    """One stage while it is built; ``identity`` is the image's id, "" for scratch."""

    identity: str
    load: Callable[[str], Image]
    change: Change
    globals: Mapping[str, str]
    given: Mapping[str, str | None]
    author: str = ""
    platform: str = ""

    @classmethod
    def of(
        cls,
        image: Image | None,
        load: Callable[[str], Image],
        globals: Mapping[str, str],
        given: Mapping[str, str | None],
        escape: str,
    ) -> State:
        """The beginning of a stage."""
        settings: dict[str, Any] = {}
        if image is not None:
            settings = dict(msgspec.json.decode(image.config_bytes).get("config") or {})
            # Each image names its own parent there.
            settings.pop("Image", None)
        environment = list(settings.get("Env") or ())
        if not any(row.startswith("PATH=") for row in environment):
            settings["Env"] = [*environment, PATH]
        change = Change(settings, escape=escape)
        return cls(image.id if image else "", load, change, globals, given)

    @property
    def key(self) -> str:
        """What the next step stands on."""
        return self.identity or f"scratch {self.platform}"

    @property
    def image(self) -> Image | None:
        """The image, read when it is asked for: a cached step needs only its id."""
        return self.load(self.identity) if self.identity else None

    @property
    def settings(self) -> dict[str, Any]:
        """The config so far."""
        return self.change.config

    @settings.setter
    def settings(self, config: dict[str, Any]) -> None:
        self.change.config = config

    def with_parent(self) -> dict[str, Any]:
        """The config of the next image, which names the one that it stands on."""
        return {**self.settings, "Image": self.identity} if self.identity else self.settings

    @property
    def arguments(self) -> dict[str, str]:
        """The values of the ARGs so far."""
        return self.change.arguments

    @property
    def escape(self) -> str:
        """The escape character of the Dockerfile."""
        return self.change.escape

    def values(self) -> dict[str, str]:
        """All variables that an instruction sees: ENV before ARG."""
        return self.change.values()

    def replaced(self, text: str) -> str:
        """Text with its variables, and without its quotes."""
        return self.change.replaced(text)

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
        if instruction.name == "MAINTAINER":
            self.author = self.replaced(instruction.rest)
            return f"MAINTAINER {self.author}"
        return self.change.apply(instruction.name, instruction.rest)
