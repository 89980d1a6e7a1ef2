"""Uploads (distribution spec, "Push"): looked for, else sent in a PATCH and named by a PUT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlencode, urljoin

from urllib3.response import BaseHTTPResponse

from lading.errors import NotFound, Unavailable
from lading.hooks.registry import OutgoingLayer, PushedLayer, Remote
from lading_registry_v2.connection import Connection

CHUNK = 1 << 20
ATTEMPTS = 3


def scope(remote: Remote) -> str:
    """What a push may do."""
    return f"repository:{remote.repository}:pull,push"


def layer(
    connection: Connection, remote: Remote, outgoing: OutgoingLayer, tell: Callable[[int], None]
) -> PushedLayer:
    """Store a layer unless it is there; a broken upload begins anew."""
    if outgoing.digest and (size := _there(connection, remote, outgoing.digest)) is not None:
        return PushedLayer(outgoing.digest, size, outgoing.media_type, "exists")
    for _ in range(ATTEMPTS - 1):
        try:
            return _sent(connection, remote, outgoing, tell)
        except Unavailable:
            continue
    return _sent(connection, remote, outgoing, tell)


def _sent(
    connection: Connection, remote: Remote, outgoing: OutgoingLayer, tell: Callable[[int], None]
) -> PushedLayer:
    digest, size = _send(connection, remote, outgoing, tell)
    return PushedLayer(digest, size, outgoing.media_type, "pushed")


def small(connection: Connection, remote: Remote, digest: str, content: bytes) -> None:
    """Store a blob that is in memory, such as a config."""
    if _there(connection, remote, digest) is not None:
        return
    location = _begin(connection, remote)
    connection.request(
        "PUT",
        _with_digest(location, digest),
        scope=scope(remote),
        headers={"Content-Type": "application/octet-stream"},
        body=content,
        expect=(201, 204),
    )


def _there(connection: Connection, remote: Remote, digest: str) -> int | None:
    path = f"{remote.repository}/blobs/{digest}"
    try:
        answer = connection.request("HEAD", path, scope=scope(remote))
    except NotFound:
        return None
    return int(answer.headers.get("Content-Length") or 0)


def _begin(connection: Connection, remote: Remote) -> str:
    path = f"{remote.repository}/blobs/uploads/"
    headers = {"Content-Length": "0"}
    answer = connection.request(
        "POST", path, scope=scope(remote), headers=headers, body=b"", expect=(202,)
    )
    return _location(connection, answer)


def _location(connection: Connection, answer: BaseHTTPResponse) -> str:
    return urljoin(connection.base, answer.headers.get("Location", ""))


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"


def _send(
    connection: Connection, remote: Remote, outgoing: OutgoingLayer, tell: Callable[[int], None]
) -> tuple[str, int]:
    location = _begin(connection, remote)
    stream = outgoing.open()
    try:
        answer = connection.request(
            "PATCH",
            location,
            scope=scope(remote),
            headers={"Content-Type": "application/octet-stream"},
            body=_pieces(stream.read, tell),
            expect=(202,),
        )
    finally:
        stream.close()
    digest, size = outgoing.sent()
    connection.request(
        "PUT",
        _with_digest(_location(connection, answer), digest),
        scope=scope(remote),
        headers={"Content-Length": "0"},
        body=b"",
        expect=(201, 204),
    )
    return digest, size


def _pieces(read: Callable[[int], bytes], tell: Callable[[int], None]) -> Iterator[bytes]:
    sent = 0
    while piece := read(CHUNK):
        yield piece
        sent += len(piece)
        tell(sent)
