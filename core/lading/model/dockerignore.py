"""``.dockerignore``: which files of a context stay behind.

The last pattern that matches a path, or a directory above it, decides; ``!`` takes back. ``*`` and
``?`` stop at slashes, ``**`` does not.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from lading.errors import Invalid


class Ignore:
    """The patterns of one file."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [_Pattern(line) for line in _cleaned(lines)]
        self.has_exceptions = any(pattern.negative for pattern in self._patterns)
        self._all: re.Pattern[str] | None = None
        if self._patterns and not self.has_exceptions:
            # Then the order does not matter, and one expression is many times faster.
            whole = "|".join(f"(?:{pattern.expression})" for pattern in self._patterns)
            self._all = re.compile(f"(?:{whole})(?:/.*)?", re.DOTALL)

    def matches(self, path: str) -> bool:
        """Whether a path, relative to the context and with slashes, stays behind."""
        if self._all is not None:
            return self._all.fullmatch(path) is not None
        parents = _parents(path) if self._patterns else []
        ignored = False
        for pattern in self._patterns:
            if pattern.negative != ignored:
                continue  # it could not change the answer
            if pattern.match(path) or any(pattern.match(parent) for parent in parents):
                ignored = not pattern.negative
        return ignored

    def may_skip(self, directory: str) -> bool:
        """Whether an ignored directory need not be walked: no exception can be below it."""
        if not self.has_exceptions:
            return True
        prefix = f"{directory}/"
        return not any(
            pattern.negative and (pattern.wild or f"{pattern.text}/".startswith(prefix))
            for pattern in self._patterns
        )


def _cleaned(lines: Iterable[str]) -> Iterable[str]:
    for number, line in enumerate(lines):
        if number == 0:
            line = line.removeprefix("\ufeff")
        if line.startswith("#") or not line.strip():
            continue
        text = line.strip()
        mark = "!" if text.startswith("!") else ""
        text = text[len(mark) :].strip()
        if text:
            text = posixpath.normpath(text)
            text = text.lstrip("/") if len(text) > 1 else text
        if mark and not text:
            raise Invalid('illegal exclusion pattern: "!"')
        yield mark + text


class _Pattern:
    """One pattern as a regular expression."""

    def __init__(self, line: str) -> None:
        self.negative = line.startswith("!")
        self.text = line.removeprefix("!")
        # A wildcard before the first slash may lead anywhere.
        self.wild = any(c in self.text for c in "*?[")
        try:
            self.expression = _expression(self.text)
            self._compiled = re.compile(self.expression, re.DOTALL)
        except re.error as error:
            raise Invalid(f'syntax error in pattern "{self.text}"') from error

    def match(self, path: str) -> bool:
        """Whether it matches the whole path."""
        return self._compiled.fullmatch(path) is not None


def _expression(text: str) -> str:
    parts, at = [], 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*" and text.startswith("*", at):
            at += 1
            if text.startswith("/", at):
                at += 1
                parts.append("(?:.*/)?")
            else:
                parts.append(".*")
        elif char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[":
            end = text.find("]", at + 1)
            if end < 0:
                raise Invalid(f'syntax error in pattern "{text}"')
            parts.append("[" + text[at:end].replace("\\", "\\\\") + "]")
            at = end + 1
        elif char == "\\" and at < len(text):
            parts.append(re.escape(text[at]))
            at += 1
        else:
            parts.append(re.escape(char))
    return "".join(parts)


def _parents(path: str) -> list[str]:
    pieces = path.split("/")
    return ["/".join(pieces[:i]) for i in range(1, len(pieces))]
