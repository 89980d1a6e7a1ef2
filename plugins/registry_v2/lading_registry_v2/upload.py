"""Uploads (distribution spec, "Push"): found, mounted, or sent, and taken up where they broke.

A layer goes out in one PATCH, however large; a registry that does not take that (413) gets pieces.
After a break the registry says how far it got, and the upload goes on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode, urljoin

from urllib3.response import BaseHTTPResponse

from lading.errors import Denied, Invalid, LadingError, NotFound, Unauthorized, Unavailable
from lading.hooks.registry import OutgoingLayer, PushedLayer, Remote, Stream
from lading.http import retries
from lading_registry_v2.connection import Connection

CHUNK = 1 << 20
ATTEMPTS = 5
#: Bytes of one PATCH for a registry that refuses more.
PIECE = 16 << 20
#: Repositories that a registry is asked to mount a layer from.
MOST_SOURCES = 3
_OCTETS = {"Content-Type": "application/octet-stream"}

Tell = Callable[[int], None]


def scope(remote: Remote, source: str = "") -> str:
    """What a push may do, and read from where."""
    own = f"repository:{remote.repository}:pull,push"
    return f"{own} repository:{source}:pull" if source else own


def layer(
    connection: Connection, remote: Remote, outgoing: OutgoingLayer, tell: Tell
) -> PushedLayer:
    """Store a layer unless it is there."""
    location = ""
    if outgoing.digest:
        size = there(connection, remote, outgoing.digest)
        if size is not None:
            return PushedLayer(outgoing.digest, size, outgoing.media_type, "exists")
        for source in outgoing.sources[:MOST_SOURCES]:
            mounted, location = _mount(connection, remote, outgoing.digest, source)
            if mounted:
                return PushedLayer(outgoing.digest, outgoing.size, outgoing.media_type, "mounted")
            if location:
                break
    _Upload(connection, remote, outgoing, tell, location).run()
    digest, size = outgoing.sent()
    return PushedLayer(digest, size, outgoing.media_type, "pushed")


def small(connection: Connection, remote: Remote, digest: str, content: bytes) -> None:
    """Store a blob that is in memory, such as a config, in one piece."""
    if there(connection, remote, digest) is not None:
        return
    connection.request(
        "PUT",
        _with_digest(begin(connection, remote), digest),
        scope=scope(remote),
        headers=_OCTETS,
        body=content,
        expect=(201, 204),
    )


def there(connection: Connection, remote: Remote, digest: str) -> int | None:
    """The size of a blob that the repository shows, or None."""
    path = f"{remote.repository}/blobs/{digest}"
    try:
        answer = connection.request("HEAD", path, scope=scope(remote))
    except NotFound:
        return None
    return int(answer.headers.get("Content-Length") or 0)


def begin(connection: Connection, remote: Remote) -> str:
    """Open a session; returns where it is."""
    path = f"{remote.repository}/blobs/uploads/"
    answer = connection.request(
        "POST", path, scope=scope(remote), headers={"Content-Length": "0"}, body=b"", expect=(202,)
    )
    return _location(connection, answer)


def _mount(connection: Connection, remote: Remote, digest: str, source: str) -> tuple[bool, str]:
    """Ask for a blob of another repository; else the registry may have opened a session."""
    query = urlencode({"mount": digest, "from": source})
    try:
        answer = connection.request(
            "POST",
            f"{remote.repository}/blobs/uploads/?{query}",
            scope=scope(remote, source),
            headers={"Content-Length": "0"},
            body=b"",
            expect=(201, 202),
        )
    except (NotFound, Denied, Invalid):
        return False, ""
    return answer.status == 201, _location(connection, answer) if answer.status == 202 else ""


def _location(connection: Connection, answer: BaseHTTPResponse) -> str:
    location = answer.headers.get("Location", "")
    if not location:
        raise Invalid(f'registry "{connection.remote.host}": an upload without a Location')
    return urljoin(connection.base, location)


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"


class _Upload:
    """One layer on its way."""

    def __init__(
        self,
        connection: Connection,
        remote: Remote,
        outgoing: OutgoingLayer,
        tell: Tell,
        location: str,
    ) -> None:
        self._connection, self._remote = connection, remote
        self._outgoing, self._tell = outgoing, tell
        self._location = location
        self._offset = 0
        self._pieces = False

    def run(self) -> None:
        """Send it, over as many breaks as it takes."""
        for attempt in range(ATTEMPTS):
            try:
                self._send()
                return
            except (Unavailable, Unauthorized, _TooLargeError) as error:
                # A token may end during an upload, so once more with a new one.
                refused = isinstance(error, Unauthorized) and (attempt or not self._location)
                if attempt == ATTEMPTS - 1 or refused:
                    raise
                time.sleep(retries.pause(attempt))
                self._find_out()

    def _find_out(self) -> None:
        """Ask how far the registry got; begin anew where it does not say."""
        if not self._location:
            return
        try:
            answer = self._connection.request(
                "GET", self._location, scope=scope(self._remote), expect=(200, 204)
            )
        except LadingError:
            self._location, self._offset = "", 0
            return
        match = re.fullmatch(r"(?:bytes[ =])?0-(\d+)", answer.headers.get("Range", ""))
        # "0-0" may be one byte or none.
        if match is None or not int(match[1]):
            self._location, self._offset = "", 0
            return
        self._offset = int(match[1]) + 1
        if answer.headers.get("Location"):
            self._location = _location(self._connection, answer)

    def _send(self) -> None:
        self._connection.authenticate(scope(self._remote))
        if not self._location:
            self._location, self._offset = begin(self._connection, self._remote), 0
        stream = self._outgoing.open()
        try:
            self._skip(stream)
            while True:
                body = self._piece(stream) if self._pieces else self._rest(stream)
                if body == b"":
                    break
                self._patch(body)
                if not self._pieces:
                    break
        finally:
            stream.close()
        digest, _ = self._outgoing.sent()
        self._connection.request(
            "PUT",
            _with_digest(self._location, digest),
            scope=scope(self._remote),
            headers={"Content-Length": "0"},
            body=b"",
            expect=(201, 204),
        )

    def _skip(self, stream: Stream) -> None:
        left = self._offset
        while left:
            piece = stream.read(min(left, CHUNK))
            if not piece:
                raise Invalid("the registry has more of the layer than there is")
            left -= len(piece)

    def _patch(self, body: bytes | Iterator[bytes]) -> None:
        headers = dict(_OCTETS)
        if isinstance(body, bytes):
            headers["Content-Range"] = f"{self._offset}-{self._offset + len(body) - 1}"
        try:
            answer = self._connection.request(
                "PATCH",
                self._location,
                scope=scope(self._remote),
                headers=headers,
                body=body,
                expect=(202, 204, 413),
            )
        except NotFound as error:
            self._location = ""
            raise Unavailable(error.message) from error
        if answer.status == 413:
            if self._pieces:
                raise Invalid(f'registry "{self._remote.host}" takes no layer of this size')
            self._pieces = True
            raise _TooLargeError
        self._location = _location(self._connection, answer)
        if isinstance(body, bytes):
            self._offset += len(body)
            self._tell(self._offset)

    def _rest(self, stream: Stream) -> Iterator[bytes]:
        sent = self._offset
        while piece := stream.read(CHUNK):
            yield piece
            sent += len(piece)
            self._tell(sent)

    def _piece(self, stream: Stream) -> bytes:
        parts, missing = [], PIECE
        while missing > 0 and (part := stream.read(min(missing, CHUNK))):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


class _TooLargeError(Exception):
    """The registry takes only a part at a time."""
