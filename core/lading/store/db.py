"""Metadata in SQLite: one writer, any number of readers, migrations per package.

The file is in WAL mode, so readers never wait for the writer. A *durable* transaction is on disk
when it returns: use it where a user is told "done". The others survive a kill of the daemon, yet
may be lost with the host's power: use them for what reconciliation can find out again.

Each package brings its own tables as a :class:`Schema`: a name and the steps that lead from an
empty file to the present layout. A step, once released, never changes; new ones are appended.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lading.errors import Unavailable

log = logging.getLogger(__name__)

Row = tuple[Any, ...]

#: How long another process (a backup, sqlite3(1)) may hold the file before a call gives up.
BUSY_SECONDS = 10.0

#: Bytes of file and of log that are kept for bad times; the log is checkpointed at this size.
RESERVE = 4 << 20


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one package: ``steps[n]`` is the SQL that leads from version n to n + 1."""

    name: str
    steps: Sequence[str]


def encode(value: object) -> str:
    """A value as the text of a JSON column; ``msgspec.json.decode`` reads it back."""
    return msgspec.json.encode(value).decode()


class Database:
    """The metadata of one data root. All methods may be called from any thread."""

    def __init__(self, path: Path, schemas: Sequence[Schema] = ()) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._lock = threading.RLock()
        self._depth = 0
        self._owner = 0
        self._durable = False
        self._writer = self._connect()
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA journal_size_limit=-1")
        self._writer.execute(
            "CREATE TABLE IF NOT EXISTS schema_versions (name TEXT PRIMARY KEY, version INTEGER)"
        )
        self._wal = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        self._reserve()
        for schema in schemas:
            self.migrate(schema)

    def _reserve(self) -> None:
        """Own some space in advance, so that a full disk stops no change of state.

        A container may fill the disk, and its end must be written down all the same. Pages that
        were written once are reused: those of the file from its free list, those of the log after
        a checkpoint.
        """
        try:
            with self.write():
                self._writer.execute("CREATE TABLE reserve (space BLOB)")
                self._writer.execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVE,))
                self._writer.execute("DROP TABLE reserve")
        except sqlite3.OperationalError as error:
            # The disk is full already: what is there can still be looked at and removed.
            log.warning('metadata "%s": no space in reserve: %s', self._path, error)
        self._writer.execute("PRAGMA wal_checkpoint(RESTART)")

    def migrate(self, schema: Schema) -> None:
        """Bring one package's tables up to date, in one durable transaction.

        Raises Unavailable when the file was written by a newer Lading.
        """
        with self.write() as connection:
            row = connection.execute(
                "SELECT version FROM schema_versions WHERE name = ?", (schema.name,)
            ).fetchone()
            version = int(row[0]) if row else 0
            if version > len(schema.steps):
                raise Unavailable(
                    f'metadata "{self._path}": tables of {schema.name} are of version {version}, '
                    f"this Lading knows up to {len(schema.steps)}",
                    hint="start the newer Lading that wrote it",
                )
            for step in schema.steps[version:]:
                for statement in _statements(step):
                    connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_versions VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET version = excluded.version",
                (schema.name, len(schema.steps)),
            )

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Give the writer's connection, inside one transaction.

        It commits when the block ends and rolls back when it raises. Blocks nest within a thread:
        the outermost one is the transaction, and it is durable when any of them is.
        """
        with self._lock:
            outermost = self._depth == 0
            if outermost:
                self._durable = False
                self._writer.execute("BEGIN IMMEDIATE")
                self._owner = threading.get_ident()
            self._depth += 1
            self._durable = self._durable or durable
            try:
                yield self._writer
            except BaseException:
                if outermost:
                    self._writer.execute("ROLLBACK")
                raise
            else:
                if outermost:
                    self._writer.execute("COMMIT")
                    durable = self._durable
            finally:
                self._depth -= 1
        if outermost and durable:
            # What synchronous=FULL does at the end of COMMIT, but outside of the lock: writers
            # that follow are not held up, and their frames often ride on the same sync.
            os.fdatasync(self._wal)

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """All rows of a query; inside ``write`` it sees the open transaction."""
        with self._reader() as connection:
            return connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, *parameters: object) -> Row | None:
        """The first row of a query, or None."""
        with self._reader() as connection:
            row: Row | None = connection.execute(sql, parameters).fetchone()
            return row

    def close(self) -> None:
        """Close all connections; the file is then complete without its ``-wal``."""
        with self._lock, self._idle_lock:
            for connection in [*self._idle, self._writer]:
                connection.close()
            self._idle.clear()
            os.close(self._wal)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        # A thread per API connection would pile up a connection each: they are lent instead.
        if self._depth and self._owner == threading.get_ident():
            yield self._writer
            return
        with self._idle_lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only=ON")
        try:
            yield connection
        finally:
            with self._idle_lock:
                self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection


def _statements(script: str) -> Iterator[str]:
    """Split a script; ``executescript`` would commit the open transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
