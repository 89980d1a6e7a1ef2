"""Long operations that tell how far they are: a stream of JSON messages, as pull and build have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lading.api.failures import error_response, message_of
from lading.api.version import version_of
from lading.errors import Cancelled
from lading.http.messages import Push, Request, Response

Emit = Callable[..., None]
"""Sends messages, in one piece; may be called by any thread. Raises Cancelled when the client has
gone."""


def progress(request: Request, work: Callable[[Emit], None], *, accepted: bool = False) -> Response:
    """Answer with what ``work`` emits.

    An error before the first message is an ordinary answer, unless the request counts as
    ``accepted``; later ones are a last message, since the status has been sent. The connection is
    cut when the client has gone.
    """

    def write(send: Callable[[bytes], None]) -> None:
        lock = threading.Lock()
        begun = False

        def emit(*messages: Mapping[str, Any]) -> None:
            nonlocal begun
            with lock:
                begun = True
                try:
                    send(b"".join(msgspec.json.encode(m) + b"\r\n" for m in messages))
                except OSError as error:
                    raise Cancelled("the client went away") from error

        try:
            work(emit)
        except Cancelled:
            raise
        except Exception as error:
            if not (begun or accepted):
                raise
            text = message_of(error)
            emit({"errorDetail": {"message": text}, "error": text})

    return Push(
        200,
        {"Content-Type": "application/json"},
        write=write,
        failed=lambda error: error_response(error, version_of(request)),
    )
