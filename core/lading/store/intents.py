"""Changes of several steps that a crash must not leave half-done.

An intent is a row that is written, durably, before the first step, and deleted after the last.
Its steps are idempotent, so what a killed daemon left is run again from the start::

    with intents.open("remove-container", container_id):
        ...                          # steps; an exception closes the intent as well
    intents.resume({"remove-container": finish_removal})     # at daemon start

An intent that ends by an exception is closed too, since the code that raised has undone its work;
only a crash leaves rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from lading.backends import START_DEADLINE, under_deadline
from lading.store.db import Database, Schema, encode

SCHEMA = Schema(
    "intents",
    [
        """
        CREATE TABLE intents (
            id INTEGER PRIMARY KEY, action TEXT NOT NULL, object TEXT NOT NULL,
            details TEXT NOT NULL
        );
        """
    ],
)

#: What finishes or undoes an intent: called with its object and details.
Finish = Callable[[str, Mapping[str, Any]], None]

log = logging.getLogger(__name__)


class Intents:
    """The intents of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        db.migrate(SCHEMA)

    @contextmanager
    def open(
        self, action: str, object_id: str, details: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        """Hold an intent while the block runs."""
        intent = self.begin(action, object_id, details)
        try:
            yield
        finally:
            self.end(intent)

    def begin(
        self,
        action: str,
        object_id: str,
        details: Mapping[str, Any] | None = None,
        *,
        durable: bool = True,
    ) -> int:
        """Write an intent; inside ``Database.write`` it joins that transaction."""
        with self._db.write(durable=durable) as connection:
            cursor = connection.execute(
                "INSERT INTO intents (action, object, details) VALUES (?, ?, ?)",
                (action, object_id, encode(dict(details or {}))),
            )
            return int(cursor.lastrowid or 0)

    def end(self, intent: int) -> None:
        """Forget an intent. Its loss in a crash only means that its steps run once more."""
        with self._db.write(durable=False) as connection:
            connection.execute("DELETE FROM intents WHERE id = ?", (intent,))

    def resume(self, finishers: Mapping[str, Finish]) -> None:
        """Run the finisher of each intent that a crash left; a failure keeps it for next time.

        One that a backend holds up goes on by itself after :data:`START_DEADLINE`.
        """
        for intent, action, object_id, details in self._db.rows(
            "SELECT id, action, object, details FROM intents ORDER BY id"
        ):
            finish = finishers.get(action)
            if finish is None:
                continue
            log.info("finishing %s of %s", action, object_id)
            work = partial(self._finish, finish, intent, object_id, msgspec.json.decode(details))
            try:
                under_deadline(work, START_DEADLINE, action)
            except Exception:
                log.exception("finishing %s of %s failed", action, object_id)

    def _finish(
        self, finish: Finish, intent: int, object_id: str, details: Mapping[str, Any]
    ) -> None:
        finish(object_id, details)
        self.end(intent)
