"""The lexer: texts and actions of a template, and the tokens of an action."""

from __future__ import annotations

import re

from lading.cli.gotemplate.functions import TemplateError

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>/\*.*?\*/)
      | (?P<text>"(?:\\.|[^"\\\n])*" | `[^`]*`)
      | (?P<char>'(?:\\.|[^'\\])+')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.]))
      | (?P<variable>\$\w*)
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<dot>\.)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<declare>:=)
      | (?P<mark>[|(),=])""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = re.compile(r"\{\{(-(?=\s))?")
_END_TRIM = re.compile(r"\s-\}\}")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

Token = tuple[str, str]


def pieces(source: str) -> list[tuple[str, str, int]]:
    """The source as texts and actions, each with its line; trim markers are worked in."""
    found: list[tuple[str, str, int]] = []
    at, trim = 0, False
    while True:
        opening = _OPENING.search(source, at)
        text = source[at : opening.start() if opening else len(source)]
        if trim:
            text = text.lstrip(" \t\r\n")
        if opening and opening.group(1):
            text = text.rstrip(" \t\r\n")
        if text:
            found.append(("text", text, 0))
        if opening is None:
            return found
        line = source.count("\n", 0, opening.start()) + 1
        at = _end_of_action(source, opening.end(), line)
        body = source[opening.end() : at - 2]
        trim = _END_TRIM.search(source, max(at - 4, 0), at) is not None and body.endswith("-")
        found.append(("action", body[:-1] if trim else body, line))


def _end_of_action(source: str, at: int, line: int) -> int:
    """The position behind the ``}}`` that ends the action which began before ``at``."""
    while not source.startswith("}}", at):
        if source.startswith("-}}", at):
            return at + 3
        token = _TOKEN.match(source, at)
        if token is None:
            if at >= len(source) or "}}" not in source[at:]:
                raise TemplateError("unclosed action", line=line)
            if source[at] in "\"'`":
                raise TemplateError("unterminated quoted string", line=line)
            raise TemplateError(f"unexpected {source[at]!r} in command", line=line)
        at = token.end()
    return at + 2


def tokens_of(body: str, line: int) -> list[Token]:
    """The tokens of an action, without spaces at its ends."""
    tokens: list[Token] = []
    at = 0
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise TemplateError(f"unexpected {body[at]!r} in command", line=line)
        kind = found.lastgroup or ""
        if kind != "comment":
            tokens.append((kind, found.group()))
        at = found.end()
    while tokens and tokens[-1][0] == "space":
        tokens.pop()
    while tokens and tokens[0][0] == "space":
        tokens.pop(0)
    return tokens


def number_of(text: str) -> int | float:
    """A literal number."""
    try:
        return int(text, 0)
    except ValueError:
        return float(text)


def unquoted(text: str) -> str:
    """What a literal text or character stands for."""
    if text[0] == "`":
        return text[1:-1]
    return _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(found: re.Match[str]) -> str:
    code = found.group(1)
    if code[0] in "xuU" and len(code) > 1:
        return chr(int(code[1:], 16))
    if len(code) == 3:
        return chr(int(code, 8))
    return _ESCAPES.get(code, code)
