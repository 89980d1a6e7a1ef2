"""Requests and responses as the handlers of a server see them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from lading.errors import Invalid
from lading.http.presence import Watch
from lading.http.stream import CHUNK, Stream

FALSE_WORDS = frozenset(("", "0", "no", "false", "none"))


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: an address over TCP, a process over a unix socket.

    ``certificate`` is the subject's common name when the peer showed one that holds.
    """

    address: str = ""
    pid: int = 0
    uid: int = -1
    gid: int = -1
    certificate: str = ""


class Query:
    """The parameters behind the ``?``; a name may occur many times."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, default: str = "") -> str:
        """The first value of that name."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """All values of that name."""
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """Truth as Docker reads it: empty, 0, no, false and none are false."""
        if name not in self._values:
            return default
        return self.get(name).strip().lower() not in FALSE_WORDS

    def integer(self, name: str, default: int = 0) -> int:
        """A decimal number; empty is the default. Raises Invalid."""
        text = self.get(name).strip()
        if not text:
            return default
        try:
            return int(text)
        except ValueError as error:
            raise Invalid(f'query parameter "{name}": "{text}" is not a number') from error

    def json(self, name: str) -> Any:
        """A value in JSON; None when it is missing or empty. Raises Invalid."""
        text = self.get(name)
        if not text:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise Invalid(f'query parameter "{name}": invalid JSON: {error}') from error


class Headers(Mapping[str, str]):
    """Header fields; names in any case, the values of a repeated one joined by commas."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            self._fields[key] = f"{self._fields[key]}, {value}" if key in self._fields else value

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class RequestBody(Protocol):
    """The body of a request as a file; nothing is read from the network before it is asked for.

    Raises Invalid when it is malformed, ConnectionError when the client breaks off.
    """

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end; all when negative."""
        ...

    def read1(self, size: int = CHUNK) -> bytes:
        """Some bytes, as soon as they are here; none at the end."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """The rest in pieces as they come."""
        ...


class Presence(Protocol):
    """Whether the client is still there, while a handler works or a response is streamed."""

    def gone(self) -> bool:
        """Whether the client has hung up."""
        ...

    def when_gone(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Call back, once and from another thread, if the client hangs up inside the context."""
        ...


@dataclass(slots=True)
class Request:
    """One request. ``path`` is decoded and has no query; ``target`` is what was on the wire.

    ``values`` are what the router matched in the path, ``state`` is the application's.
    """

    method: str
    target: str
    headers: Headers
    body: RequestBody
    peer: Peer
    presence: Presence
    path: str = ""
    query: Query = field(default_factory=lambda: Query(""))
    values: Mapping[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path, _, query = self.target.partition("?")
        self.path = unquote(path)
        self.query = Query(query)

    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self.presence.gone()

    def when_gone(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Call back, from another thread, if the client hangs up inside the context."""
        return self.presence.when_gone(callback)

    def wants_upgrade(self) -> bool:
        """Whether the client asks to speak another protocol on this connection."""
        return "upgrade" in self.headers.get("connection", "").lower()


@dataclass(slots=True)
class Response:
    """An answer. ``body`` is bytes, or pieces that are sent one by one as they come.

    Headers are sent before the first piece is asked for. When the iterator raises, the connection
    is cut, so that the client sees that the body is not whole. Iterators are closed at the end.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Response:
        """A value as JSON, with a line end as Docker has it."""
        return cls(status, {"Content-Type": "application/json"}, msgspec.json.encode(value) + b"\n")

    @classmethod
    def text(cls, text: str, status: int = 200) -> Response:
        """Plain text."""
        return cls(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())

    @classmethod
    def stream(cls, pieces: Iterable[bytes], media_type: str, status: int = 200) -> Response:
        """Pieces of unknown number."""
        return cls(status, {"Content-Type": media_type}, pieces)


@dataclass(slots=True)
class FileResponse(Response):
    """A part of a file, sent by the kernel where the connection is plain; the file is closed."""

    file: BinaryIO | None = None
    offset: int = 0
    size: int = 0


@dataclass(slots=True)
class Push(Response):
    """A body that is pushed: ``write`` is called with a function that sends one piece.

    Headers go with the first piece; when ``write`` raises before, ``failed`` answers instead, and
    afterwards the connection is cut. What ``send`` raises is an OSError: the client is gone.
    """

    write: Callable[[Callable[[bytes], None]], None] | None = None
    failed: Callable[[Exception], Response] | None = None


class Connection:
    """The raw connection after an upgrade; what the client had sent already comes first."""

    def __init__(self, stream: Stream, early: bytes, watch: Watch) -> None:
        self.stream = stream
        self._early = early
        self._watch = watch
        self.sendall = stream.sendall
        self.shutdown_write = stream.shutdown_write
        self.shutdown = stream.shutdown

    def recv(self, size: int = CHUNK) -> bytes:
        """Wait for some bytes; none when the client has ended its side."""
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        return self.stream.recv(size)

    def when_closed(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Call back, once and from another thread, when the client closes both directions inside
        the context. Over TCP that shows only when something is sent to it."""
        return self._watch.watching(self.stream.socket, callback, both=True)


@dataclass(slots=True)
class Hijack(Response):
    """The client's connection becomes raw: 101 when it asked for that, else 200 without length.

    ``prepare`` is called before the head is sent and returns what then has the connection to
    itself, in the connection's thread; it is closed afterwards. Where the connection is a plain
    socket with nothing read ahead, ``hand_over`` is preferred: it takes the descriptor, which it
    must duplicate, and the head, which it must see sent. ``failed`` answers for errors of both.
    """

    prepare: Callable[[], Callable[[Connection], None]] | None = None
    hand_over: Callable[[int, bytes], None] | None = None
    failed: Callable[[Exception], Response] | None = None


App = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class _Route:
    pattern: str
    expression: re.Pattern[str]
    handler: App

    @property
    def weight(self) -> int:
        """How much of the pattern is literal."""
        return len(re.sub(r"\{.*?\}", "", self.pattern))


def _compiled(pattern: str) -> re.Pattern[str]:
    expression = ""
    for literal, name, kind in re.findall(r"([^{]*)(?:\{(\w+)(:path)?\})?", pattern):
        expression += re.escape(literal)
        if name:
            expression += f"(?P<{name}>{'.+' if kind else '[^/]+'})"
    return re.compile(expression, re.DOTALL)


class Router:
    """Finds the handler of a path. In a pattern, ``{name}`` matches one segment, ``{name:path}``
    one or more, slashes included; longer literal text wins over earlier registration."""

    def __init__(self) -> None:
        self._routes: dict[str, list[_Route]] = {}
        self._exact: dict[tuple[str, str], App] = {}

    def add(self, method: str, pattern: str, handler: App) -> None:
        """Register a handler; the same method and pattern again replaces it."""
        if "{" not in pattern:
            self._exact[method, pattern] = handler
            return
        routes = self._routes.setdefault(method, [])
        routes[:] = [r for r in routes if r.pattern != pattern]
        routes.append(_Route(pattern, _compiled(pattern), handler))
        routes.sort(key=lambda route: route.weight, reverse=True)

    def find(self, method: str, path: str) -> tuple[App, Mapping[str, str]] | None:
        """The handler for a decoded path, and what its names matched."""
        if handler := self._exact.get((method, path)):
            return handler, {}
        for route in self._routes.get(method, ()):
            if match := route.expression.fullmatch(path):
                return route.handler, match.groupdict()
        return None

    def methods(self, path: str) -> Sequence[str]:
        """The methods that this path has."""
        known = {method for method, _ in self._exact} | set(self._routes)
        return sorted(method for method in known if self.find(method, path))
