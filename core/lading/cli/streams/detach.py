"""Detach keys: the sequence that leaves a container running and gives the terminal back."""

from __future__ import annotations

from lading.cli.errors import Failure

DEFAULT = "ctrl-p,ctrl-q"


def key_codes(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes that a terminal sends; raises Failure."""
    codes = bytearray()
    for key in (text or DEFAULT).split(","):
        if len(key) == 1 and key.isascii():
            codes.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in "abcdefghijklmnopqrstuvwxyz":
            codes.append(ord(key[5]) - ord("a") + 1)
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in "@[\\]^_":
            codes.append(ord(key[5]) - ord("@"))
        else:
            raise Failure(f"Unknown character: '{key}'")
    return bytes(codes)


class DetachScanner:
    """Looks for the sequence in what is typed; keys that may begin it are held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the sequence is complete."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._held]
            self._held = 0
            if byte == self._keys[0] and len(self._keys) > 1:
                self._held = 1
            else:
                out.append(byte)
        return bytes(out), False
