"""The errors that Lading raises on purpose, one tree.

::

    LadingError            500 internal      exit 1
    ├── NotFound           404 no such object
    ├── Conflict           409 the name is taken, or the state forbids it
    │   └── InUse          409 something still refers to it
    ├── Invalid            400 the caller's input is wrong
    ├── Denied             403 policy or credentials say no
    │   └── Unauthorized   401 no or wrong credentials
    ├── Unsupported        501 this host or backend cannot do it; ``hint`` says what would help
    ├── NotModified        304 already in the wanted state
    ├── Unavailable        503 a backend, peer or resource is not there (now)
    ├── StartFailed        400 the container's process could not be started (exit codes 126, 127)
    └── Cancelled          499 the caller went away

A message names the operation and the object, then the reason: ``mount "/proc": Operation
not permitted``. A remedy goes into ``hint``, not into the message. System errors stay
``OSError``; they are wrapped (``raise ... from error``) where the operation is known.
"""

from __future__ import annotations

import os
from typing import ClassVar


class LadingError(Exception):
    """Base of all; carries the HTTP status of its kind, a message and an optional hint."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotFound(LadingError):
    """No object of that name or id."""

    status = 404
    kind = "not-found"


class Conflict(LadingError):
    """The name is taken, or the object's state forbids the operation."""

    status = 409
    kind = "conflict"


class InUse(Conflict):
    """Something else still refers to the object."""

    kind = "in-use"


class Invalid(LadingError):
    """The input is wrong; the message says which part and what would be right."""

    status = 400
    kind = "invalid"


class Denied(LadingError):
    """A policy forbids it."""

    status = 403
    kind = "denied"


class Unauthorized(Denied):
    """Credentials are missing or wrong."""

    status = 401
    kind = "unauthorized"


class Unsupported(LadingError):
    """This host or this backend cannot do it."""

    status = 501
    kind = "unsupported"


class NotModified(LadingError):
    """The object already is in the wanted state."""

    status = 304
    kind = "not-modified"


class Unavailable(LadingError):
    """A backend, a peer or a resource does not answer now."""

    status = 503
    kind = "unavailable"


class StartFailed(LadingError):
    """The user's process could not be started.

    ``errno`` tells why: ``ENOENT`` and ``EACCES`` become the exit codes 127 and 126.
    """

    status = 400
    kind = "start-failed"

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class Cancelled(LadingError):
    """The caller went away before the operation was done."""

    status = 499
    kind = "cancelled"


def _tree(cls: type[LadingError]) -> dict[str, type[LadingError]]:
    # A subclass that inherits its kind is a detail of one module; what crosses is the kind.
    found = {cls.kind: cls} if "kind" in vars(cls) else {}
    for sub in cls.__subclasses__():
        found.update(_tree(sub))
    return found


def to_wire(error: BaseException) -> dict[str, object]:
    """An error as JSON members, for crossing a process border; :func:`from_wire` reverses it."""
    if isinstance(error, LadingError):
        wire: dict[str, object] = {"kind": error.kind, "message": error.message, "hint": error.hint}
        if isinstance(error, StartFailed):
            wire["errno"] = error.errno
        return wire
    if isinstance(error, OSError):
        where = f' "{os.fsdecode(error.filename)}"' if error.filename else ""
        reason = f"{error.strerror or error}{where}"
        return {"kind": "os", "errno": error.errno or 0, "message": reason}
    return {"kind": "internal", "message": f"{type(error).__name__}: {error}"}


def from_wire(wire: dict[str, object]) -> Exception:
    """The error that :func:`to_wire` described."""
    kind, message = str(wire.get("kind")), str(wire.get("message", ""))
    if kind == "os":
        return OSError(wire.get("errno", 0), message)
    hint = str(wire.get("hint", ""))
    if kind == StartFailed.kind:
        number = wire.get("errno", 0)
        return StartFailed(message, errno=number if isinstance(number, int) else 0, hint=hint)
    return _tree(LadingError).get(kind, LadingError)(message, hint=hint)
