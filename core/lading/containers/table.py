"""The containers of the daemon: in memory, with the metadata behind.

A :class:`Live` is the changing side of one container: its current record, what connects the daemon
to its processes, and who waits for it. Whoever changes a container holds its lock; readers take
the record, which is a value.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from lading.containers.lock import MARGIN, Lock
from lading.containers.names import ID_LENGTH
from lading.containers.options import Wait
from lading.containers.records import Container, State, Status
from lading.errors import Conflict, Invalid, NotFound
from lading.monitor import AttachSpec, Follower, Monitor
from lading.store.db import Database, Schema

SCHEMA = Schema(
    "containers",
    [
        """
        CREATE TABLE containers (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL,
            state TEXT NOT NULL
        );
        """
    ],
)

_STATE = msgspec.json.Encoder()

#: Seconds, where the configuration does not say.
HOOK_TIMEOUT = 120.0


class Stoppable(Protocol):
    """Something that goes on until it is stopped."""

    def stop(self) -> None:
        """End it, without waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """A client that waits for the start; ``descriptor`` is ours."""

    descriptor: int
    spec: AttachSpec


class Live:
    """One container, as it changes."""

    __slots__ = (
        "attachments",
        "delay",
        "ending",
        "environment",
        "exits",
        "followers",
        "health",
        "held",
        "lock",
        "monitor",
        "record",
        "removals",
        "restart",
        "settled",
        "started",
    )

    def __init__(self, record: Container, patience: float = HOOK_TIMEOUT) -> None:
        self.record = record
        self.lock = Lock(lambda: self.record.name, patience)
        #: Told when the end of its process has been dealt with: ``ending`` is unset then.
        self.settled = threading.Condition()
        self.ending = False
        self.monitor: Monitor | None = None
        self.environment: tuple[str, ...] = ()
        self.exits: list[Wait] = []
        self.removals: list[Wait] = []
        self.attachments: list[Pending] = []
        self.followers: list[Follower] = []
        self.health: Stoppable | None = None
        self.restart: threading.Timer | None = None
        #: Set while ``restart`` stops it, so that its end neither restarts nor removes it.
        self.held = False
        self.delay = 0.0
        self.started = 0.0

    @property
    def id(self) -> str:
        """The container's id."""
        return self.record.id


class Table:
    """All containers by id and by name."""

    def __init__(self, db: Database, hook_timeout: float = HOOK_TIMEOUT) -> None:
        db.migrate(SCHEMA)
        self._db = db
        self._patience = hook_timeout * MARGIN
        self._lock = threading.Lock()
        self._live: dict[str, Live] = {}
        self._names: dict[str, str] = {}
        decoder = msgspec.json.Decoder(Container)
        for record, state in db.rows("SELECT record, state FROM containers"):
            container = msgspec.structs.replace(
                decoder.decode(record), state=msgspec.json.decode(state, type=State)
            )
            self._live[container.id] = Live(container, self._patience)
            self._names[container.name] = container.id

    def all(self) -> list[Live]:
        """Every container, in no order."""
        with self._lock:
            return list(self._live.values())

    def __iter__(self) -> Iterator[Live]:
        return iter(self.all())

    def find(self, ref: str) -> Live:
        """By full id, name, or unique prefix of an id. Raises NotFound, Invalid."""
        name = ref.removeprefix("/")
        with self._lock:
            if live := self._live.get(ref):
                return live
            if full := self._names.get(name):
                # A name that is taken by a container which is still being made has no Live yet.
                if live := self._live.get(full):
                    return live
            elif 0 < len(ref) < ID_LENGTH and all(c in "0123456789abcdef" for c in ref):
                found = [live for full, live in self._live.items() if full.startswith(ref)]
                if len(found) > 1:
                    raise Invalid(f"multiple IDs found with provided prefix: {ref}")
                if found:
                    return found[0]
        raise NotFound(f"No such container: {ref}")

    def lookup(self, container_id: str) -> Live | None:
        """By full id."""
        return self._live.get(container_id)

    def reserve(self, name: str, container_id: str) -> None:
        """Take a name for a container that is being made. Raises Conflict."""
        with self._lock:
            owner = self._names.setdefault(name, container_id)
            if owner != container_id:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container '
                    f'"{owner}". You have to remove (or rename) that container to be able to '
                    "reuse that name."
                )

    def free(self, name: str) -> None:
        """Give back a reserved name."""
        with self._lock:
            self._names.pop(name, None)

    @property
    def names(self) -> frozenset[str]:
        """All names in use."""
        with self._lock:
            return frozenset(self._names)

    def add(self, record: Container) -> Live:
        """Put a new container in, durably."""
        live = Live(record, self._patience)
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO containers VALUES (?, ?, ?, ?)",
                (record.id, record.name, *_columns(record)),
            )
        with self._lock:
            self._live[record.id] = live
        return live

    def save(self, live: Live, record: Container, *, durable: bool = True) -> None:
        """Replace a container's record, in the metadata and then in memory."""
        columns = _columns(record)
        with self._db.write(durable=durable) as connection:
            connection.execute(
                "UPDATE containers SET name = ?, record = ?, state = ? WHERE id = ?",
                (record.name, *columns, record.id),
            )
        live.record = record

    def save_state(self, live: Live, state: State, *, durable: bool = False) -> None:
        """Replace only the state, which is what changes most."""
        with self._db.write(durable=durable) as connection:
            connection.execute(
                "UPDATE containers SET state = ? WHERE id = ?",
                (_STATE.encode(state).decode(), live.id),
            )
        self.set_state(live, state)

    def set_status(self, live: Live, status: Status) -> None:
        """Replace the status in memory alone."""
        self.set_state(live, msgspec.structs.replace(live.record.state, status=status))

    def set_state(self, live: Live, state: State) -> None:
        """Replace the state in memory alone."""
        live.record = msgspec.structs.replace(live.record, state=state)

    def rename(self, live: Live, name: str) -> None:
        """Give another name, durably. Raises Conflict."""
        old = live.record.name
        self.reserve(name, live.id)
        try:
            self.save(live, msgspec.structs.replace(live.record, name=name))
        except BaseException:
            self.free(name)
            raise
        self.free(old)

    def discard(self, live: Live) -> None:
        """Take a container out of memory and free its name."""
        with self._lock:
            self._live.pop(live.id, None)
            if self._names.get(live.record.name) == live.id:
                del self._names[live.record.name]


def _columns(record: Container) -> tuple[str, str]:
    stateless = msgspec.structs.replace(record, state=State())
    return _STATE.encode(stateless).decode(), _STATE.encode(record.state).decode()
