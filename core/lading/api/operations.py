"""API requests as operations that extensions are told of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from lading.http.messages import App, Connection, Hijack, Push, Request, Response
from lading.operations import Operations, Running


def observed(app: App, operations: Operations) -> App:
    """The app; each request is an operation until its response has been sent."""

    def answer(request: Request) -> Response:
        attributes = {"http.request.method": request.method, "url.path": request.path}
        parent = request.headers.get("traceparent", "")
        running = operations.begin(f"{request.method} {request.path}", attributes, parent)
        with running.part():
            response = app(request)
        return _followed(response, running)

    return answer


def _followed(response: Response, running: Running) -> Response:
    """The response; what is still done while it is sent belongs to the operation."""
    if isinstance(response, Hijack):
        return _followed_hijack(response, running)
    if isinstance(response, Push) and response.write is not None:
        write = _whole(response.write, running)
        return dataclasses.replace(response, write=write)
    if isinstance(response.body, bytes):
        running.end(_message(response) if response.status >= 400 else "")
        return response
    return dataclasses.replace(response, body=_pieces(response.body, running))


def _message(response: Response) -> str:
    try:
        text = msgspec.json.decode(response.body, type=dict[str, Any])["message"]  # type: ignore[arg-type]
    except (msgspec.DecodeError, KeyError):
        text = ""
    return f"{response.status} {text}".rstrip()


def _whole(function: Callable[..., None], running: Running) -> Callable[..., None]:
    """The function, with whose return the operation ends."""

    def call(*arguments: Any) -> None:
        with running.part():
            function(*arguments)
        running.end()

    return call


def _pieces(body: Iterable[bytes], running: Running) -> Iterator[bytes]:
    """The pieces; each is made for the operation, whatever the thread does between two."""
    pieces = iter(body)
    try:
        while True:
            with running.part():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            with running.part():
                close()
        running.end()


def _followed_hijack(response: Hijack, running: Running) -> Hijack:
    prepare, hand_over = response.prepare, response.hand_over
    assert prepare is not None

    def prepared() -> Callable[[Connection], None]:
        with running.part():
            return _whole(prepare(), running)

    handed = None if hand_over is None else _whole(hand_over, running)
    return dataclasses.replace(response, prepare=prepared, hand_over=handed)
