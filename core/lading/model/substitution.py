"""Variables in instructions: ``$v``, ``${v}`` and its modifiers, quotes and escapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from lading.errors import Invalid

#: Patterns are not looked for in longer values.
_LONGEST = 32 << 10
_DEEPEST = 50

_NAME = re.compile(r"[A-Za-z_]\w*|\d|[@*#?!$-]")


def substitute(
    text: str, values: Mapping[str, str], *, escape: str = "\\", keep_quotes: bool = False
) -> str:
    """Text with its variables replaced. Raises Invalid for what cannot be read.

    Quotes are removed unless ``keep_quotes``, which is for words that are split afterwards.
    Nothing is replaced within single quotes.
    """
    return _Reader(text, values, escape, keep_quotes).read()


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words separated by blanks outside of quotes and ``${}``; quotes stay."""
    return [text[start:end] for start, end in word_places(text, escape)]


def word_places(text: str, escape: str = "\\") -> Iterator[tuple[int, int]]:
    """Where each word begins and ends, one by one."""
    start, quote, depth, at = -1, "", 0, 0
    while at < len(text):
        char = text[at]
        if char.isspace() and not quote and not depth:
            if start >= 0:
                yield start, at
            start, at = -1, at + 1
            continue
        start = at if start < 0 else start
        if char == escape and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif text.startswith("${", at):
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        at += 1
    if start >= 0:
        yield start, len(text)


def shortened(text: str, size: int = 80) -> str:
    """A text of which so much is shown."""
    return text if len(text) <= size else f"{text[:size]}..."


class _Reader:
    def __init__(
        self, text: str, values: Mapping[str, str], escape: str, keep_quotes: bool
    ) -> None:
        self._text, self._values, self._escape = text, values, escape
        self._keep, self._at, self._depth = keep_quotes, 0, 0

    def read(self, end: str = "", *, raw: bool = False) -> str:
        """Up to ``end``, which is consumed; ``raw`` leaves escapes, for patterns."""
        parts: list[str] = []
        quote, text = "", self._text
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Invalid(f"variables within variables, more than {_DEEPEST} deep")
        while self._at < len(text):
            char = text[self._at]
            if end and char == end and not quote:
                self._at += 1
                self._depth -= 1
                return "".join(parts)
            self._at += 1
            if quote == "'":
                if char == "'":
                    quote = ""
                parts.append(char if self._keep or char != "'" else "")
            elif char == self._escape and self._at < len(text):
                parts.append(self._raw() if raw else self._escaped(quote))
            elif char == '"' or (char == "'" and not quote):
                quote = "" if quote == char else char
                parts.append(char if self._keep else "")
            elif char == "$":
                parts.append(self._variable())
            else:
                parts.append(char)
        if end:
            raise Invalid(f'"{shortened(text)}": missing {end!r}')
        if quote and not self._keep:
            raise Invalid(
                f'"{shortened(text)}": unexpected end of statement while looking for {quote}'
            )
        return "".join(parts)

    def _raw(self) -> str:
        self._at += 1
        # Patterns have the backslash, whatever the file's escape is.
        return "\\" + self._text[self._at - 1]

    def _escaped(self, quote: str) -> str:
        char = self._text[self._at]
        self._at += 1
        if self._keep and char != "$":
            return self._escape + char
        if quote and char not in ('"', "$", self._escape):
            return self._escape + char
        return char

    def _variable(self) -> str:
        braces = self._text.startswith("{", self._at)
        self._at += braces
        match = _NAME.match(self._text, self._at)
        if match is None:
            if braces:
                raise Invalid(f'"{shortened(self._text)}": bad substitution')
            return "$"
        self._at = match.end()
        name = match.group()
        if not braces:
            return self._values.get(name, "")
        return self._modified(name)

    def _modified(self, name: str) -> str:
        value = self._values.get(name)
        rest = self._text[self._at :]
        match = re.match(r"\}|:?[-+?]|##?|%%?|//?", rest)
        if match is None:
            raise Invalid(
                f'"{shortened(self._text)}": unsupported modifier ({rest[:2]}) in substitution'
            )
        operator = match.group()
        self._at += match.end()
        if operator == "}":
            return value or ""
        if operator[0] in "#%/":
            pattern = self.read("/" if operator[0] == "/" else "}", raw=True)
            if len(value or "") > _LONGEST:
                raise Invalid(f"{name}: a value of more than {_LONGEST} characters has no pattern")
            if operator[0] != "/":
                return _stripped(value or "", operator, pattern)
            word = self.read("}")
            if not pattern:
                return value or ""
            count = 0 if operator == "//" else 1
            return _longest(_pieces(pattern)).sub(lambda _: word, value or "", count=count)
        word = self.read("}")
        there = bool(value) if operator.startswith(":") else value is not None
        return _CHOICES[operator[-1]](name, value or "", word, there)


def _required(name: str, value: str, word: str, there: bool) -> str:
    if not there:
        raise Invalid(f"{name}: {word or 'is not allowed to be empty or unset'}")
    return value


_CHOICES: dict[str, Callable[[str, str, str, bool], str]] = {
    "-": lambda name, value, word, there: value if there else word,
    "+": lambda name, value, word, there: word if there else "",
    "?": _required,
}


def _stripped(value: str, operator: str, pattern: str) -> str:
    pieces = _pieces(pattern)
    if operator[0] == "%":
        # The end of a text is the beginning of the reversed one.
        value, pieces = value[::-1], [piece[::-1] for piece in reversed(pieces)]
    found = (_longest if len(operator) == 2 else _shortest)(pieces).match(value)
    rest = value[found.end() :] if found else value
    return rest[::-1] if operator[0] == "%" else rest


def _pieces(pattern: str) -> list[list[str]]:
    """What is between the stars of a shell pattern, as expressions of one character each."""
    pieces: list[list[str]] = [[]]
    for match in re.finditer(r"\\(.)|(.)", pattern, re.DOTALL):
        if match[2] == "*":
            pieces.append([])
        else:
            pieces[-1].append("." if match[2] == "?" else re.escape(match[1] or match[2]))
    return pieces


# Each piece is taken where it comes first, without a second thought: a pattern with many stars
# costs no more than one with a single star.


def _shortest(pieces: list[list[str]]) -> re.Pattern[str]:
    first, *others = ("".join(piece) for piece in pieces)
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in others), re.DOTALL)


def _longest(pieces: list[list[str]]) -> re.Pattern[str]:
    first, *others = ("".join(piece) for piece in pieces)
    middle = "".join(f"(?>.*?{piece})" for piece in others[:-1])
    last = f".*{others[-1]}" if others else ""
    return re.compile(first + middle + last, re.DOTALL)
