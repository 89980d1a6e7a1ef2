"""Errors as answers in Docker's form."""

from __future__ import annotations

import logging
import os

from lading.api.version import Version
from lading.errors import LadingError, NotModified
from lading.http.messages import Response

log = logging.getLogger(__name__)

# Errors became JSON with this version; before, they were plain text.
_JSON: Version = (1, 24)


def message_of(error: BaseException) -> str:
    """What a user reads: the system's words without its numbers, the type of what is a fault."""
    if isinstance(error, LadingError):
        return str(error)
    if isinstance(error, OSError):
        where = f": {os.fsdecode(error.filename)}" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return f"{type(error).__name__}: {error}"


def error_response(error: Exception, version: Version) -> Response:
    """The answer that tells of an error; the daemon's own faults are logged."""
    if isinstance(error, NotModified):
        return Response(304)
    if isinstance(error, LadingError):
        message, status = str(error), error.status
        if status == 500:
            log.error("%s", message)
    else:
        log.error("internal error", exc_info=error)
        message, status = message_of(error), 500
    if version < _JSON:
        return Response.text(f"{message}\n", status)
    return Response.json({"message": message}, status)
