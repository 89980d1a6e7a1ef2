"""``--chmod``: octal, or as chmod(1) has it, ``u=rwX,go-w``."""

from __future__ import annotations

import re

from lading.errors import Invalid

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_WHO = {"u": 0o700, "g": 0o070, "o": 0o007}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}


class Chmod:
    """A change of modes."""

    def __init__(self, text: str) -> None:
        """Read it. Raises Invalid."""
        self._octal = -1
        self._clauses: list[tuple[str, list[tuple[str, str]]]] = []
        if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
            self._octal = int(text, 8)
            return
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise Invalid(f"invalid chmod parameter: '{text}' (octal, or as u=rwX,go-w)")
            self._clauses.append((match[1] or "a", _ACTION.findall(match[2])))

    def of(self, mode: int, *, directory: bool) -> int:
        """The permissions that come of others."""
        if self._octal >= 0:
            return self._octal
        mode &= 0o7777
        for who, actions in self._clauses:
            whole = sum(_WHO[w] for w in set(who.replace("a", "ugo")))
            for sign, letters in actions:
                bits = _bits(mode, who, letters, whole, directory=directory)
                if sign == "-":
                    mode &= ~bits
                elif sign == "+":
                    mode |= bits
                else:
                    mode = mode & ~whole | bits
        return mode


def _bits(mode: int, who: str, letters: str, whole: int, *, directory: bool) -> int:
    if letters and letters in "ugo":
        copied = mode >> _SHIFT[letters] & 7
        return (copied << 6 | copied << 3 | copied) & whole
    bits = 0
    for letter in letters:
        if letter == "X":
            bits |= 0o111 if directory or mode & 0o111 else 0
        elif letter == "s":
            bits |= (0o4000 if whole & 0o700 else 0) | (0o2000 if whole & 0o070 else 0)
        elif letter == "t":
            bits |= 0o1000 if "a" in who or "o" in who else 0
        else:
            bits |= _BITS[letter]
    return bits & (whole | 0o7000)
