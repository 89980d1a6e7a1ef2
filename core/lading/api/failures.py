"""Errors as answers in Docker's form."""

from __future__ import annotations

import logging

from lading.api.version import Version
from lading.errors import LadingError, NotModified
from lading.http.messages import Response

log = logging.getLogger(__name__)

# Errors became JSON with this version; before, they were plain text.
_JSON: Version = (1, 24)


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
        message = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        status = 500
    if version < _JSON:
        return Response.text(f"{message}\n", status)
    return Response.json({"message": message}, status)
