"""Repositories: their tags, the content they show, stars, and the search index."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lading.errors import NotFound
from lading.store.clock import now
from lading.store.db import Database
from lading_registry_server import names

#: A link is marked as seen again at most this often, in seconds: reads should not all write.
TOUCH_SECONDS = 300
#: The shortest text the trigram index can look up.
SHORTEST_WORD = 3


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as ``get`` and ``search`` have it."""

    name: str
    owner: str = ""
    private: bool = False
    description: str = ""
    created: str = ""
    updated: str = ""
    stars: int = 0


@dataclass(frozen=True, slots=True)
class Tag:
    """Where a tag leads: to a manifest (``digest``), to a chain of 2014 (``image``), or to both.

    ``pusher`` is the User-Agent of the program that set it.
    """

    name: str
    digest: str
    image: str
    updated: str
    pusher: str = ""


_COLUMNS = (
    "r.name, r.owner, r.private, r.description, r.created, r.updated, "
    "(SELECT count(*) FROM stars s WHERE s.repository = r.name)"
)


class Repositories:
    """Reads and writes the tables; thread safe. Names are stored ones (:mod:`names`)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, name: str) -> Repository | None:
        """A repository, or None."""
        row = self._db.row(f"SELECT {_COLUMNS} FROM repositories r WHERE r.name = ?", name)
        return None if row is None else _repository(row)

    def ensure(self, name: str, owner: str = "") -> None:
        """Make the repository unless it is there; its first pusher owns it."""
        if self._db.row("SELECT 1 FROM repositories WHERE name = ?", name) is None:
            with self._db.write() as connection:
                made = connection.execute(
                    "INSERT INTO repositories (name, owner, created, updated) "
                    "VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (name, owner, now(), now()),
                )
                if made.rowcount:
                    self._index(connection, name, "")

    def remove(self, name: str) -> None:
        """Remove it with all its tags. Raises NotFound."""
        with self._db.write() as connection:
            gone = connection.execute("DELETE FROM repositories WHERE name = ?", (name,))
            if not gone.rowcount:
                raise NotFound(f'repository "{name}" does not exist')
            connection.execute("DELETE FROM words WHERE name = ?", (names.legacy(name),))

    def change(
        self, name: str, *, private: bool | None = None, description: str | None = None
    ) -> None:
        """Change what is known of it. Raises NotFound."""
        known = self.get(name)
        if known is None:
            raise NotFound(f'repository "{name}" does not exist')
        private = known.private if private is None else private
        description = known.description if description is None else description
        with self._db.write() as connection:
            connection.execute(
                "UPDATE repositories SET private = ?, description = ? WHERE name = ?",
                (private, description, name),
            )
            self._index(connection, name, description)

    def _index(self, connection: sqlite3.Connection, name: str, description: str) -> None:
        shown = names.legacy(name)
        connection.execute("DELETE FROM words WHERE name = ?", (shown,))
        connection.execute("INSERT INTO words VALUES (?, ?)", (shown, description))

    def catalog(self, last: str = "", limit: int = -1) -> list[Repository]:
        """Repositories that have something, by name, those after ``last``."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM repositories r WHERE r.name > ? AND ("
            "EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.name) "
            "OR EXISTS (SELECT 1 FROM tags t WHERE t.repository = r.name)) "
            "ORDER BY r.name LIMIT ?",
            last,
            limit,
        )
        return [_repository(row) for row in rows]

    def search(self, text: str) -> list[Repository]:
        """Repositories whose name or description has all the words, the best first."""
        words = text.replace('"', " ").split()
        long = [word for word in words if len(word) >= SHORTEST_WORD]
        like = [word for word in words if len(word) < SHORTEST_WORD]
        where, values = ["true"], list[object]()
        if long:
            where.append("words MATCH ?")
            values.append(" ".join(f'"{word}"' for word in long))
        for word in like:
            where.append("(w.name LIKE ? ESCAPE '\\' OR w.description LIKE ? ESCAPE '\\')")
            pattern = "%" + word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            values += [pattern, pattern]
        # The name counts ten times as much as the description.
        order = "bm25(words, 10.0, 1.0), 7 DESC, r.name" if long else "7 DESC, r.name"
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM words w JOIN repositories r "
            "ON w.name = r.name OR w.name = 'library/' || r.name "
            f"WHERE {' AND '.join(where)} ORDER BY {order}".replace("words MATCH", "w.words MATCH"),
            *values,
        )
        return [_repository(row) for row in rows]

    # -- tags

    def tags(self, name: str) -> list[Tag]:
        """All tags by name."""
        rows = self._db.rows(
            "SELECT tag, digest, image, updated, pusher FROM tags WHERE repository = ? "
            "ORDER BY tag",
            name,
        )
        return [Tag(*row) for row in rows]

    def tag(self, name: str, tag: str) -> Tag | None:
        """One tag, or None."""
        row = self._db.row(
            "SELECT tag, digest, image, updated, pusher FROM tags WHERE repository = ? AND tag = ?",
            name,
            tag,
        )
        return None if row is None else Tag(*row)

    def set_tag(
        self, name: str, tag: str, *, digest: str = "", image: str = "", pusher: str = ""
    ) -> None:
        """Let a tag lead somewhere, durably."""
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (repository, tag) DO "
                "UPDATE SET digest = excluded.digest, image = excluded.image, "
                "updated = excluded.updated, pusher = excluded.pusher",
                (name, tag, digest, image, now(), pusher),
            )
            connection.execute("UPDATE repositories SET updated = ? WHERE name = ?", (now(), name))

    def complete_tag(self, name: str, was: Tag, *, digest: str = "", image: str = "") -> None:
        """Note the other form of what a tag leads to, unless it has moved meanwhile."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "UPDATE tags SET digest = ?, image = ? WHERE repository = ? AND tag = ? "
                "AND digest = ? AND image = ?",
                (digest or was.digest, image or was.image, name, was.name, was.digest, was.image),
            )

    def remove_tag(self, name: str, tag: str) -> bool:
        """Remove a tag; whether it was there."""
        with self._db.write() as connection:
            done = connection.execute(
                "DELETE FROM tags WHERE repository = ? AND tag = ?", (name, tag)
            )
            return bool(done.rowcount)

    # -- what a repository shows

    def link(self, name: str, digest: str) -> None:
        """Let the repository show a blob."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "INSERT INTO links VALUES (?, ?, ?) "
                "ON CONFLICT (repository, digest) DO UPDATE SET seen = excluded.seen",
                (name, digest, time.time()),
            )

    def linked(self, name: str, digest: str) -> bool:
        """Whether it shows that blob; asking keeps it from being collected for a while."""
        row = self._db.row(
            "SELECT seen FROM links WHERE repository = ? AND digest = ?", name, digest
        )
        if row is not None and time.time() - row[0] > TOUCH_SECONDS:
            self.link(name, digest)
        return row is not None

    def unlink(self, name: str, digest: str) -> bool:
        """Stop showing a blob; whether it was shown."""
        with self._db.write() as connection:
            done = connection.execute(
                "DELETE FROM links WHERE repository = ? AND digest = ?", (name, digest)
            )
            return bool(done.rowcount)

    # -- people

    def star(self, name: str, user: str, *, on: bool) -> None:
        """Give or take a star."""
        sql = (
            "INSERT INTO stars VALUES (?, ?) ON CONFLICT DO NOTHING"
            if on
            else "DELETE FROM stars WHERE repository = ? AND user = ?"
        )
        with self._db.write() as connection:
            connection.execute(sql, (name, user))

    def starred(self, name: str, user: str) -> bool:
        """Whether the user has given it a star."""
        row = self._db.row("SELECT 1 FROM stars WHERE repository = ? AND user = ?", name, user)
        return row is not None

    def grants(self, name: str) -> Mapping[str, bool]:
        """Who else may pull it; the value says whether to push as well."""
        rows = self._db.rows("SELECT user, push FROM grants WHERE repository = ?", name)
        return {str(user): bool(push) for user, push in rows}

    def grant(self, name: str, user: str, *, push: bool) -> None:
        """Let a user pull, or push too."""
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO grants VALUES (?, ?, ?) "
                "ON CONFLICT (repository, user) DO UPDATE SET push = excluded.push",
                (name, user, push),
            )

    def revoke(self, name: str, user: str) -> None:
        """Take back what was granted."""
        with self._db.write() as connection:
            connection.execute("DELETE FROM grants WHERE repository = ? AND user = ?", (name, user))


def _repository(row: Sequence[object]) -> Repository:
    name, owner, private, description, created, updated, stars = row
    return Repository(
        str(name), str(owner), bool(private), str(description), str(created), str(updated),
        int(str(stars)),
    )  # fmt: skip
