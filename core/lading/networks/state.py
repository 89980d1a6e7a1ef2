"""Rows of the network core in the metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from lading.model.docker import EndpointSettings
from lading.networks.records import EndpointState, Network, PublishedPort, Record
from lading.store.db import Database, Schema, encode

SCHEMA = Schema(
    "networks",
    [
        """
        CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL, record TEXT NOT NULL);
        CREATE UNIQUE INDEX networks_name ON networks (name);
        CREATE TABLE network_sandboxes (container TEXT PRIMARY KEY, record TEXT NOT NULL);
        CREATE TABLE network_memberships (container TEXT PRIMARY KEY, record TEXT NOT NULL);
        """
    ],
)


class Live(Record, frozen=True):
    """The sandbox of a running container.

    ``kind`` is ``private``, ``host``, ``container`` or ``path``. ``namespace`` is the name of a
    namespace of ours, ``path`` where any is. ``servers`` are those that DNS queries of the
    container are forwarded to instead of the host's. ``links`` maps aliases to container ids.
    """

    container: str
    name: str
    kind: str
    hostname: str = ""
    id: str = ""
    namespace: str = ""
    path: str = ""
    joined: str = ""
    endpoints: tuple[EndpointState, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    servers: tuple[str, ...] = ()
    links: Mapping[str, str] = {}
    deferred: bool = False

    def endpoint(self, network_id: str) -> EndpointState | None:
        """The endpoint on a network."""
        return next((e for e in self.endpoints if e.network_id == network_id), None)


class State:
    """Reads and writes the rows."""

    def __init__(self, db: Database) -> None:
        self._db = db
        db.migrate(SCHEMA)

    def networks(self) -> Iterator[Network]:
        """All networks."""
        for (text,) in self._db.rows("SELECT record FROM networks"):
            yield msgspec.json.decode(text, type=Network)

    def save_network(self, network: Network) -> None:
        """Add or change one, durably."""
        with self._db.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO networks VALUES (?, ?, ?)",
                (network.id, network.name, encode(network)),
            )

    def delete_network(self, network_id: str) -> None:
        """Remove one, durably."""
        with self._db.write() as connection:
            connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def sandboxes(self) -> Iterator[Live]:
        """All sandboxes."""
        for (text,) in self._db.rows("SELECT record FROM network_sandboxes"):
            yield msgspec.json.decode(text, type=Live)

    def save_sandbox(self, live: Live) -> None:
        """Add or change one. It need not outlive the host's power, as the container does not."""
        with self._db.write(durable=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO network_sandboxes VALUES (?, ?)",
                (live.container, encode(live)),
            )

    def delete_sandbox(self, container: str) -> None:
        """Remove one."""
        with self._db.write(durable=False) as connection:
            connection.execute("DELETE FROM network_sandboxes WHERE container = ?", (container,))

    def memberships(self) -> dict[str, dict[str, EndpointSettings]]:
        """By container the networks (by id) that ``connect`` and ``disconnect`` have led to."""
        kind = dict[str, EndpointSettings]
        rows = self._db.rows("SELECT container, record FROM network_memberships")
        return {container: msgspec.json.decode(text, type=kind) for container, text in rows}

    def save_membership(
        self, container: str, settings: Mapping[str, EndpointSettings] | None
    ) -> None:
        """Change one, durably; None removes it."""
        with self._db.write() as connection:
            connection.execute("DELETE FROM network_memberships WHERE container = ?", (container,))
            if settings is not None:
                connection.execute(
                    "INSERT INTO network_memberships VALUES (?, ?)",
                    (container, encode(dict(settings))),
                )
