"""The key sequence that detaches from a terminal, ``ctrl-p,ctrl-q`` by default."""

from __future__ import annotations

from lading.errors import Invalid

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {chr(c): c - 96 for c in range(ord("a"), ord("z") + 1)} | {
    "@": 0,
    "[": 27,
    "\\": 28,
    "]": 29,
    "^": 30,
    "_": 31,
}


class DetachKeys:
    """Watches keystrokes for the sequence, which may arrive in pieces.

    Keys of a beginning that does not go on are passed on with the key that broke it.
    """

    def __init__(self, keys: str = "") -> None:
        """``keys`` are single characters or ``ctrl-X``, separated by commas. Raises Invalid."""
        self._sequence = bytes(_code(key, keys) for key in (keys or DEFAULT).split(","))
        self._matched = 0

    def filter(self, data: bytes) -> bytes | None:
        """What to pass on of these keystrokes; None when the sequence is complete."""
        passed = bytearray()
        for key in data:
            if key != self._sequence[self._matched]:
                passed += self._sequence[: self._matched]
                self._matched = 0
            if key == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return None
            else:
                passed.append(key)
        return bytes(passed)


def _code(key: str, keys: str) -> int:
    prefix, _, rest = key.partition("ctrl-")
    if not prefix and rest.lower() in _CONTROL:
        return _CONTROL[rest.lower()]
    if len(key) == 1 and key.isascii():
        return ord(key)
    raise Invalid(
        f'invalid detach keys "{keys}": "{key}" is neither one character nor ctrl- and one of '
        "a-z @ [ \\ ] ^ _"
    )
