"""What only the client of a build has: secrets and its SSH agent.

A client that offers them keeps connections open besides that of the build, each an upgraded
``POST /build/session?id=...``. The daemon takes one when it needs something and writes one line of
JSON: ``{"secret": ID}``, ``{"agent": ID}`` (is there one?) or ``{"ssh": ID}``. The client answers
with a line, ``{"size": N}`` and N bytes, ``{"ok": true}`` and then the agent's own protocol, or
``{"missing": true}``, and opens the next connection. Nothing of it is in a query, a header or a
log, and nothing is kept.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from lading.errors import Invalid, Unavailable
from lading.http.messages import Connection

#: A secret is not longer, in bytes.
LARGEST = 500 << 10
ANSWER_SECONDS = 30
_SHORTEST_ID = 16
_LINE = 4096


class Waiting:
    """A connection, and the end of its use."""

    def __init__(self, channel: Connection) -> None:
        self.channel = channel
        self.done = threading.Event()


class Sessions:
    """The clients' connections of one daemon; thread safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, list[Waiting]] = {}

    def offer(self, identity: str, channel: Connection) -> Waiting:
        """A client's new connection; the caller keeps it open until ``done``. Raises Invalid."""
        if len(identity) < _SHORTEST_ID:
            raise Invalid(f"build session: an id has at least {_SHORTEST_ID} characters")
        waiting = Waiting(channel)
        with self._changed:
            self._waiting.setdefault(identity, []).append(waiting)
            self._changed.notify_all()
        return waiting

    def withdraw(self, identity: str, waiting: Waiting) -> None:
        """A client has closed a connection. One that is in use is its user's: there may be an
        answer in it still."""
        with self._changed:
            known = self._waiting.get(identity, [])
            if waiting not in known:
                return
            known.remove(waiting)
            if not known:
                del self._waiting[identity]
        waiting.done.set()

    def forget(self, identity: str) -> None:
        """The build is over: let go what was not needed."""
        with self._changed:
            left = self._waiting.pop(identity, [])
        for waiting in left:
            waiting.done.set()

    def ask(self, identity: str, kind: str, name: str) -> tuple[Waiting, dict[str, Any], bytes]:
        """Ask a client; the connection, its answer, and what came behind that.

        Raises Unavailable when the client does not answer.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting.get(identity), ANSWER_SECONDS):
                raise Unavailable(f"{kind} {name}: the client does not answer")
            taken = self._waiting[identity].pop(0)
        try:
            taken.channel.sendall(json.dumps({kind: name}).encode() + b"\n")
            line, rest = b"", b""
            while b"\n" not in line:
                piece = taken.channel.recv()
                if not piece or len(line) > _LINE:
                    raise Unavailable(f"{kind} {name}: the client does not answer")
                line += piece
            line, _, rest = line.partition(b"\n")
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            taken.done.set()
            raise Unavailable(f"{kind} {name}: the client does not answer: {error}") from error
        except BaseException:
            taken.done.set()
            raise
        return taken, answer, rest

    def has_agent(self, identity: str, name: str) -> bool:
        """Whether a client forwards an SSH agent under that name."""
        taken, answer, _ = self.ask(identity, "agent", name)
        taken.done.set()
        return bool(answer.get("ok"))

    def secret(self, identity: str, name: str) -> bytes | None:
        """A secret of the client's; None when it has none of that name."""
        if not identity:
            return None
        taken, answer, data = self.ask(identity, "secret", name)
        try:
            if answer.get("missing"):
                return None
            if answer.get("error"):
                raise Unavailable(f"secret {name}: {answer['error']}")
            size = answer.get("size")
            if not isinstance(size, int) or not 0 <= size <= LARGEST:
                raise Invalid(f"secret {name}: longer than {LARGEST} bytes")
            while len(data) < size:
                piece = taken.channel.recv()
                if not piece:
                    raise Unavailable(f"secret {name}: the client went away")
                data += piece
            return data[:size]
        finally:
            taken.done.set()
