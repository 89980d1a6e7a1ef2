"""Variables in instructions: ``$v``, ``${v}`` and its modifiers, quotes and escapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from lading.errors import Invalid

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
    words, current, quote, depth, at = [], "", "", 0, 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            current, at = current + text[at : at + 2], at + 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif text.startswith("${", at):
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        elif char.isspace() and not depth:
            if current:
                words.append(current)
            current, at = "", at + 1
            continue
        current, at = current + char, at + 1
    if current:
        words.append(current)
    return words


class _Reader:
    def __init__(
        self, text: str, values: Mapping[str, str], escape: str, keep_quotes: bool
    ) -> None:
        self._text, self._values, self._escape = text, values, escape
        self._keep, self._at = keep_quotes, 0

    def read(self, end: str = "") -> str:
        """Up to ``end``, which is consumed."""
        parts: list[str] = []
        quote, text = "", self._text
        while self._at < len(text):
            char = text[self._at]
            if end and char == end and not quote:
                self._at += 1
                return "".join(parts)
            self._at += 1
            if quote == "'":
                if char == "'":
                    quote = ""
                parts.append(char if self._keep or char != "'" else "")
            elif char == self._escape and self._at < len(text):
                parts.append(self._escaped(quote))
            elif char == '"' or (char == "'" and not quote):
                quote = "" if quote == char else char
                parts.append(char if self._keep else "")
            elif char == "$":
                parts.append(self._variable())
            else:
                parts.append(char)
        if end:
            raise Invalid(f'"{text}": missing {end!r}')
        if quote and not self._keep:
            raise Invalid(f'"{text}": unexpected end of statement while looking for {quote}')
        return "".join(parts)

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
                raise Invalid(f'"{self._text}": bad substitution')
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
            raise Invalid(f'"{self._text}": unsupported modifier ({rest[:2]}) in substitution')
        operator = match.group()
        self._at += match.end()
        if operator == "}":
            return value or ""
        if operator.startswith("/"):
            pattern = self.read("/")
            word = self.read("}")
            count = 0 if operator == "//" else 1
            return re.sub(_glob(pattern, greedy=True), lambda _: word, value or "", count=count)
        word = self.read("}")
        if operator[0] in "#%":
            return _stripped(value or "", operator, word)
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


def _glob(pattern: str, *, greedy: bool) -> str:
    star = ".*" if greedy else ".*?"
    pieces = {"*": star, "?": "."}
    return "(?s:" + "".join(pieces.get(c) or re.escape(c) for c in pattern) + ")"


def _stripped(value: str, operator: str, pattern: str) -> str:
    ends = range(len(value) + 1)
    expression = re.compile(_glob(pattern, greedy=True))
    if operator[0] == "#":
        for end in ends if operator == "#" else reversed(ends):
            if expression.fullmatch(value[:end]):
                return value[end:]
    else:
        for start in reversed(ends) if operator == "%" else ends:
            if expression.fullmatch(value[start:]):
                return value[:start]
    return value
