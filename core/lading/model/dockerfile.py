"""Dockerfiles as instructions: directives, continued lines, comments, heredocs, flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lading.errors import Invalid
from lading.model.substitution import shortened, split_words, word_places

#: Larger files are no Dockerfiles.
LARGEST = 8 << 20
#: Each step is an image, which tells of all steps before it: the cost grows with the square.
MOST = 2000

NAMES = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
    "MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip

#: Instructions whose own ``--name=value`` words come before their arguments.
_WITH_FLAGS = frozenset({"ADD", "COPY", "FROM", "RUN"})
_WITH_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})

#: A message is not longer than this, whatever a file makes it quote.
_LONGEST = 400
#: So much of an instruction is shown with an error.
_SHOWN = 100

#: What a message may quote of an instruction.
_QUOTED = re.compile(r"""'([^']+)'|"([^"]+)"|(--[a-z][\w-]*)|stat (\S+):""")
_FLAG = re.compile(r"--(?:\s|$|[A-Za-z])")
_DIRECTIVE = re.compile(r"#\s*(escape|syntax|check)\s*=\s*(.*)", re.I)
#: A document's mark, which begins a word: ``<<E``, ``<<-"E"``, ``3<<E``.
_HEREDOC = re.compile(r"""\d*<<(-?)(?:"([^"<\s]+)"|'([^'<\s]+)'|([^\s"'`\\<>|&;()]+))""")


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
    file: str = "Dockerfile"

    def told(self, message: str, culprit: str = "") -> str:
        """A message with file and line, and the instruction with a caret below the culprit.

        Without one it is the first thing that the message quotes.
        """
        for quoted in _QUOTED.finditer(message):
            word = next(filter(None, quoted.groups()))
            culprit = culprit or (word if word in self.text else "")
        return located(f"{self.file}:{self.line}: {message}", self.text, culprit)

    def wrong(self, message: str, culprit: str = "") -> Invalid:
        """An error in this instruction."""
        return Invalid(self.told(message, culprit))

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
    # Names in old encodings, often in comments, are as Docker's documents have them.
    text = content.decode("utf-8-sig", errors="replace")
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
        if match is None:
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
        mark = re.escape(escape)
        # A doubled one stands for itself.
        self._continued = re.compile(rf"(?<!{mark}){mark}[ \t]*$")
        self._escape = escape

    def instructions(self) -> list[Instruction]:
        """All of them."""
        found: list[Instruction] = []
        while self._at < len(self._lines):
            number = self._at + 1
            if text := self._logical():
                if len(found) == MOST:
                    raise self._error(number, f"more than {MOST} instructions", text)
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
        shown = f"{word} {text[len(word) :].strip()}".strip()
        if not arguments and name not in ("CMD", "ENTRYPOINT"):
            raise self._error(number, f"{name} requires at least one argument", shown)
        flags: list[tuple[str, str]] = []
        if name in _WITH_FLAGS:
            flags, arguments = split_flags(arguments, self._escape)
            if not arguments:
                raise self._error(number, f"{name} requires at least one argument", shown)
        elif name != "HEALTHCHECK" and (match := _FLAG.match(arguments)) and match[0] != "--":
            flag = arguments.split(None, 1)[0]
            raise self._error(number, f"unknown flag: {flag} ({name} has none)", shown, flag)
        documents: list[Heredoc] = []
        if name == "ONBUILD":
            trigger, *_ = arguments.split(None, 1)
            if trigger.upper() not in NAMES:
                raise self._unknown(trigger, shown, number)
            documents = self._documents(arguments[len(trigger) :].strip(), trigger, number)
            # The trigger is kept as a text, which is read when it is pulled.
            arguments += "".join(f"\n{d.content}{d.name}" for d in documents)
        elif name in _WITH_HEREDOCS:
            documents = self._documents(arguments, name, number)
        return Instruction(
            name, arguments, shown, number, tuple(flags), tuple(documents), self._name
        )

    def _documents(self, arguments: str, name: str, number: int) -> list[Heredoc]:
        if name.upper() not in _WITH_HEREDOCS or "<<" not in arguments:
            return []
        words = split_words(arguments, self._escape)
        return [self._document(m, number) for w in words if (m := _HEREDOC.match(w))]

    def _document(self, match: re.Match[str], number: int) -> Heredoc:
        name = match[2] or match[3] or match[4]
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._next()
            line = line.lstrip("\t") if match[1] else line
            if line == name:
                return Heredoc(name, "".join(f"{row}\n" for row in content), bool(match[4]))
            content.append(line)
        raise self._error(number, f"unterminated heredoc {name}", self._lines[number - 1], name)

    def _error(self, number: int, message: str, text: str, culprit: str = "") -> Invalid:
        told = f"dockerfile parse error {self._name}:{number}: {message}"
        return Invalid(located(told, text, culprit))

    def _unknown(self, word: str, text: str, number: int) -> Invalid:
        near = difflib.get_close_matches(word.upper()[:32], NAMES, 1)
        told = f"unknown instruction: {word[:64]}"
        if near:
            told += f" (did you mean {near[0]}?)"
        return self._error(number, told, text, word)


def located(message: str, text: str, culprit: str = "") -> str:
    """A message, the line that it is about, and a caret below the culprit (its first word)."""
    message = shortened(message, _LONGEST)
    line = text.split("\n", 1)[0]
    at = line.find(culprit) if culprit else 0
    start = max(0, at - _SHOWN // 2)
    shown = line[start : start + _SHOWN]
    # Nothing from a file may steer the terminal.
    shown = "".join(c if c.isprintable() else "?" for c in shown)
    shown = f"{'...' if start else ''}{shown}{'...' if len(line) > start + _SHOWN else ''}"
    column = max(at, 0) - start + (3 if start else 0)
    return f"{message}\n    {shown}\n    {' ' * column}^"


def split_flags(arguments: str, escape: str = "\\") -> tuple[list[tuple[str, str]], str]:
    """Leading ``--name[=value]`` words, and what follows them; ``--`` alone ends them."""
    flags, at = [], 0
    for start, end in word_places(arguments, escape):
        at = start
        if not _FLAG.match(arguments, start):
            break
        name, equals, value = arguments[start + 2 : end].partition("=")
        at = end
        if not name:
            break
        flags.append((name, _unquoted(value, escape) if equals else "true"))
    return flags, arguments[at:].lstrip()


def _unquoted(text: str, escape: str) -> str:
    """A flag's value without its quotes; variables in it stay."""
    parts, quote, at = [], "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and text[at + 1 : at + 2] in ('"', "'", " ", escape):
            parts.append(text[at + 1 : at + 2])
            at += 1
        elif char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        else:
            parts.append(char)
        at += 1
    return "".join(parts)


def file_heredocs(instruction: Instruction) -> dict[str, Heredoc]:
    """The documents of an instruction by the word that stands for each in ``rest``."""
    words = [w for w in split_words(instruction.rest) if _HEREDOC.match(w)]
    return dict(zip(words, instruction.heredocs, strict=False))
