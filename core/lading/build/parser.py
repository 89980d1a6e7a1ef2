"""Dockerfiles as instructions: directives, continued lines, comments, heredocs, flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lading.errors import Invalid

#: Larger files are no Dockerfiles.
LARGEST = 8 << 20

NAMES = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
    "MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip

#: Instructions whose own ``--name=value`` words come before their arguments.
_WITH_FLAGS = frozenset({"ADD", "COPY", "FROM", "RUN"})
_WITH_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][\w-]*)\s*=\s*(.*?)\s*$")
_HEREDOC = re.compile(r"""(?<!<)<<(-?)(?:"([\w.-]+)"|'([\w.-]+)'|([A-Za-z_][\w.-]*))""")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A document within the Dockerfile. ``expand``: its name was not quoted."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: ``rest`` follows the flags, ``text`` is the whole as one line."""

    name: str
    rest: str
    text: str
    line: int
    flags: Sequence[tuple[str, str]] = ()
    heredocs: Sequence[Heredoc] = ()

    def flag(self, name: str, default: str = "") -> str:
        """The last value of a flag; "true" where it was given without one."""
        return dict(self.flags).get(name, default)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed file; ``escape`` is the character of its continuations."""

    instructions: Sequence[Instruction]
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)


def parse(content: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Parse a Dockerfile. Raises Invalid, naming file and line."""
    if len(content) > LARGEST:
        raise Invalid(f"{name}: larger than {LARGEST} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{name}: not UTF-8 text: {error.reason}") from error
    if "\0" in text:
        raise Invalid(f"{name}:{text[: text.index(chr(0))].count(chr(10)) + 1}: binary content")
    lines = text.replace("\r\n", "\n").split("\n")
    directives = _directives(lines, name)
    escape = directives.get("escape", "\\")
    instructions = _Lines(lines, escape, name).instructions()
    if not instructions:
        raise Invalid(f"the Dockerfile ({name}) cannot be empty")
    return Dockerfile(instructions, escape, directives)


def _directives(lines: Sequence[str], name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.match(line.strip())
        if match is None or match[1].lower() not in ("escape", "syntax", "check"):
            break
        key = match[1].lower()
        if key in found:
            raise Invalid(f"{name}:{number}: only one {key} parser directive can be used")
        if key == "escape" and match[2] not in ("\\", "`"):
            raise Invalid(f"{name}:{number}: invalid ESCAPE '{match[2]}'. Must be ` or \\")
        found[key] = match[2]
    return found


class _Lines:
    """Puts lines together to instructions."""

    def __init__(self, lines: Sequence[str], escape: str, name: str) -> None:
        self._lines, self._name, self._at = lines, name, 0
        self._continued = re.compile(rf"{re.escape(escape)}[ \t]*$")

    def instructions(self) -> list[Instruction]:
        """All of them."""
        found = []
        while self._at < len(self._lines):
            number = self._at + 1
            if text := self._logical():
                found.append(self._instruction(text, number))
        return found

    def _logical(self) -> str:
        """The next logical line, "" for a comment or an empty one."""
        line = self._next()
        if not line.strip() or line.lstrip().startswith("#"):
            return ""
        parts = []
        while match := self._continued.search(line):
            parts.append(line[: match.start()])
            line = ""
            while self._at < len(self._lines):
                line = self._next()
                if line.strip() and not line.lstrip().startswith("#"):
                    break
                line = ""
        parts.append(line)
        return "".join(parts).strip()

    def _next(self) -> str:
        self._at += 1
        return self._lines[self._at - 1]

    def _instruction(self, text: str, number: int) -> Instruction:
        word, *rest = text.split(None, 1)
        name, arguments = word.upper(), rest[0].strip() if rest else ""
        if name not in NAMES:
            raise self._unknown(word, text, number)
        if not arguments and name not in ("CMD", "ENTRYPOINT"):
            raise Invalid(f"{self._name}:{number}: {name} requires at least one argument")
        flags: list[tuple[str, str]] = []
        if name in _WITH_FLAGS:
            flags, arguments = split_flags(arguments)
        documents: list[Heredoc] = []
        if name in _WITH_HEREDOCS and not arguments.startswith("["):
            documents = [self._document(m, number) for m in _HEREDOC.finditer(arguments)]
        return Instruction(name, arguments, f"{name} {text[len(word) :].strip()}".strip(),
                           number, tuple(flags), tuple(documents))  # fmt: skip

    def _document(self, match: re.Match[str], number: int) -> Heredoc:
        name = match[2] or match[3] or match[4]
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._next()
            line = line.lstrip("\t") if match[1] else line
            if line == name:
                return Heredoc(name, "".join(f"{row}\n" for row in content), bool(match[4]))
            content.append(line)
        raise Invalid(f"{self._name}:{number}: unterminated heredoc {name}")

    def _unknown(self, word: str, text: str, number: int) -> Invalid:
        near = difflib.get_close_matches(word.upper()[:32], NAMES, 1)
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        message = (
            f"dockerfile parse error {self._name}:{number}: unknown instruction: {word[:64]}\n"
            f"    {shown}\n    ^"
        )
        return Invalid(message, hint=f"did you mean {near[0]}?" if near else "")


def split_flags(arguments: str) -> tuple[list[tuple[str, str]], str]:
    """Leading ``--name[=value]`` words, and what follows them."""
    flags = []
    while match := re.match(r"--([A-Za-z][\w-]*)(?:=(\"[^\"]*\"|\S*))?(?:\s+|$)", arguments):
        flags.append((match[1], "true" if match[2] is None else match[2].strip('"')))
        arguments = arguments[match.end() :]
    return flags, arguments


def file_heredocs(instruction: Instruction) -> dict[str, Heredoc]:
    """The documents of an instruction by the word that stands for each in ``rest``."""
    words = [m.group() for m in _HEREDOC.finditer(instruction.rest)]
    return dict(zip(words, instruction.heredocs, strict=False))
