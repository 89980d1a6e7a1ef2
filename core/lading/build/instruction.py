"""COPY, ADD and WORKDIR as they are to be done: variables replaced, flags read and checked."""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from lading.build.modes import Chmod
from lading.build.state import State
from lading.errors import Invalid
from lading.images.changes import exec_form
from lading.model.dockerfile import Instruction, file_heredocs
from lading.model.substitution import split_words, substitute

_FLAGS = {
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ADD": ("chown", "chmod", "link", "exclude", "checksum", "unpack", "keep-git-dir"),
}
_SWITCHES = ("link", "parents", "unpack", "keep-git-dir")


@dataclass(frozen=True, slots=True)
class Copying:
    """One instruction, its variables replaced. ``files`` are documents of the Dockerfile.

    ``link``: what the target has at ``dest`` does not matter. ``unpack`` None is as Docker does:
    archives of the context, no others. ``unpacked`` are the sources that an archive has become.
    """

    name: str
    sources: Sequence[str]
    dest: str
    files: Sequence[tuple[str, str]] = ()
    owner: str = ""
    chmod: str = ""
    exclude: Sequence[str] = ()
    parents: bool = False
    checksum: str = ""
    shown: str = ""
    keep: bool = False
    link: bool = False
    unpack: bool | None = None
    keep_git: bool = False
    unpacked: Sequence[str] = ()

    @classmethod
    def of(cls, instruction: Instruction, state: State) -> Copying:
        """Read an instruction. Raises Invalid."""
        name = instruction.name
        flags = {
            flag: value if flag == "from" else state.replaced(value)
            for flag, value in instruction.flags
        }
        _check(name, flags)
        documents = file_heredocs(instruction)
        words = _words(instruction, state.escape)
        values = state.values()
        files = tuple(
            (d.name, substitute(d.content, values, keep_quotes=True) if d.expand else d.content)
            for w in words[:-1]
            if (d := documents.get(w)) is not None
        )
        shown = state.replaced(words[-1])
        dest = posixpath.join(state.settings.get("WorkingDir") or "/", shown)
        if shown in (".", "..") or shown.endswith(("/.", "/..")):
            dest += "/"
        if flags.get("chmod"):
            Chmod(flags["chmod"])
        return cls(
            name,
            tuple(state.replaced(w) for w in words[:-1] if w not in documents),
            dest,
            files,
            owner=flags.get("chown", ""),
            chmod=flags.get("chmod", ""),
            exclude=tuple(state.replaced(v) for k, v in instruction.flags if k == "exclude"),
            parents=flags.get("parents") == "true",
            checksum=flags.get("checksum", ""),
            shown=shown,
            link=flags.get("link") == "true",
            unpack=flags["unpack"] == "true" if "unpack" in flags else None,
            keep_git=flags.get("keep-git-dir") == "true",
        )


def check_copying(instruction: Instruction, escape: str) -> None:
    """Raise Invalid for what is wrong in a COPY or ADD, whatever its variables are."""
    _check(instruction.name, {k: v for k, v in instruction.flags if "$" not in v})
    _words(instruction, escape)


def _words(instruction: Instruction, escape: str) -> list[str]:
    words = exec_form(instruction.rest)
    if words is None:
        words = split_words(instruction.rest, escape)
    if len(words) < 2:
        raise Invalid(f"{instruction.name} requires at least two arguments: what, and where to")
    return words


def _check(name: str, flags: dict[str, str]) -> None:
    known = _FLAGS[name]
    for flag, value in flags.items():
        if flag not in known:
            near = difflib.get_close_matches(flag, known, 1)
            told = f"did you mean --{near[0]}?" if near else " ".join(f"--{f}" for f in known)
            raise Invalid(f"{name}: unknown flag: --{flag} ({told})")
        if flag in _SWITCHES and value not in ("true", "false"):
            raise Invalid(f"expecting boolean value for flag --{flag}, not: {value}")
