"""Users in a text file: ``name:scrypt:n:r:p:salt:hash[:admin]``, a line each, mode 0600.

The file may change while a server reads it: it is written aside and renamed, and read again when it
is another one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from lading.errors import Conflict, Invalid, NotFound

#: scrypt's cost (RFC 7914): about 50 ms and 16 MB for each guess.
_N, _R, _P = 1 << 14, 8, 1
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
SHORTEST_PASSWORD = 5
#: A password that was right need not be hashed again for so many seconds.
REMEMBER_SECONDS = 300


@dataclass(frozen=True, slots=True)
class User:
    """One line of the file."""

    name: str
    secret: str
    admin: bool = False


class Users:
    """The users of one file; thread safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read: tuple[int, int] = (0, 0)
        self._users: dict[str, User] = {}
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}

    def all(self) -> dict[str, User]:
        """The users by name. Raises Invalid for a file that is damaged."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return {}
        with self._lock:
            if (status.st_ino, status.st_mtime_ns) != self._read:
                self._users = _parsed(self._path)
                self._read = (status.st_ino, status.st_mtime_ns)
                self._right.clear()
            return self._users

    def get(self, name: str) -> User | None:
        """A user, or None."""
        return self.all().get(name)

    def verify(self, name: str, password: str) -> User | None:
        """The user, if the password is right; as slow for unknown users as for known ones."""
        user = self.get(name)
        seen = hmac.digest(self._key, f"{name}\0{password}".encode(), "sha256")
        if user is not None and self._right.get(seen, 0) > time.monotonic():
            return user
        secret = user.secret if user is not None else _NOBODY
        if not _matches(password, secret) or user is None:
            return None
        self._right[seen] = time.monotonic() + REMEMBER_SECONDS
        return user

    def add(self, name: str, password: str, *, admin: bool = False, new: bool = False) -> None:
        """Add a user or change his password. Raises Invalid; Conflict when ``new`` and known."""
        if not _NAME.fullmatch(name):
            raise Invalid(
                f'user name "{name}" is not valid',
                hint="lower-case letters, digits and . _ - inside, at most 64 of them",
            )
        if len(password) < SHORTEST_PASSWORD:
            raise Invalid(f"a password has at least {SHORTEST_PASSWORD} characters")
        with self._changing() as users:
            if new and name in users:
                raise Conflict(f'user "{name}" exists already')
            users[name] = User(name, _hashed(password), admin)

    def remove(self, name: str) -> None:
        """Remove a user. Raises NotFound."""
        with self._changing() as users:
            if users.pop(name, None) is None:
                raise NotFound(f'no user "{name}"')

    @contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self._path}.lock", "a") as lock:
            flock(lock, LOCK_EX)
            users = _parsed(self._path) if self._path.exists() else {}
            yield users
            aside = self._path.with_name(f"{self._path.name}.new")
            aside.unlink(missing_ok=True)
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as out:
                for user in sorted(users.values(), key=lambda user: user.name):
                    out.write(f"{user.name}:{user.secret}{':admin' if user.admin else ''}\n")
                out.flush()
                os.fsync(out.fileno())
            aside.rename(self._path)


def _parsed(path: Path) -> dict[str, User]:
    users = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        secret, colon, last = rest.rpartition(":")
        admin = bool(colon) and last == "admin"
        secret = secret if admin else rest
        if secret.count(":") != 5 or not secret.startswith("scrypt:"):
            raise Invalid(
                f'users file "{path}", line {number} is not one of a user',
                hint="write it with `lading registry user add`",
            )
        users[name] = User(name, secret, admin)
    return users


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    found = _scrypt(password, salt, _N, _R, _P)
    encoded = ":".join(base64.b64encode(part).decode() for part in (salt, found))
    return f"scrypt:{_N}:{_R}:{_P}:{encoded}"


def _matches(password: str, secret: str) -> bool:
    _, n, r, p, salt, wanted = secret.split(":")
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(wanted))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    memory = 128 * n * r * p + (1 << 20)
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=32, maxmem=memory)


#: What the password of an unknown user is compared with, so that the time tells nothing.
_NOBODY = _hashed(secrets.token_hex())
