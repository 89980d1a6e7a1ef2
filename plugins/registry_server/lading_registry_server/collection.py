"""Removal of what nothing refers to any more.

Content is needed when a manifest or a chain of 2014 refers to it. What is younger than the time of
grace stays in any case: it may belong to a push that is under way. So a collection may run beside a
serving registry.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lading.errors import NotFound
from lading_registry_server.manifests import references
from lading_registry_server.store import Store

#: Seconds for which content without a reference stays.
GRACE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection has removed."""

    blobs: int
    space: int
    manifests: int
    images: int


def collect(store: Store, *, grace: float = GRACE_SECONDS, untagged: bool = False) -> Collected:
    """Remove garbage; with ``untagged``, also manifests that no tag and no other one leads to."""
    before = time.time() - grace
    manifests = _drop_untagged(store, before) if untagged else 0
    images = _drop_chains(store, before)
    needed = _needed(store)
    blobs = space = 0
    for digest in list(store.blobs.walk()):
        if digest in needed:
            continue
        try:
            path = store.blobs.path(digest)
            status = path.stat()
        except (NotFound, FileNotFoundError):
            continue
        if status.st_mtime > before:
            continue
        store.blobs.remove(digest)
        blobs, space = blobs + 1, space + status.st_size
    with store.db.write() as connection:
        known = {row[0] for row in connection.execute("SELECT DISTINCT digest FROM links")}
        gone = [(digest,) for digest in known if not store.blobs.has(digest)]
        connection.executemany("DELETE FROM links WHERE digest = ?", gone)
    return Collected(blobs, space, manifests, images)


def _needed(store: Store) -> set[str]:
    needed: set[str] = set()
    for _, stored in store.manifests.all():
        needed.add(stored.digest)
        try:
            needed.update(references(store.manifests.content(stored.digest)))
        except NotFound:
            continue
    needed |= {str(row[0]) for row in store.db.rows("SELECT DISTINCT layer FROM images")}
    recent = time.time() - GRACE_SECONDS
    rows = store.db.rows("SELECT DISTINCT digest FROM links WHERE seen > ?", recent)
    return needed | {str(row[0]) for row in rows}


def _drop_untagged(store: Store, before: float) -> int:
    """Drop manifests without a way to them, by tag, from an index, or as referrers."""
    kept: dict[str, set[str]] = {}
    for repository, digest in store.db.rows("SELECT repository, digest FROM tags"):
        kept.setdefault(repository, set()).add(digest)
    rows = list(store.manifests.all())
    changed = True
    while changed:
        changed = False
        for repository, stored in rows:
            here = kept.setdefault(repository, set())
            reached = stored.digest in here or (stored.subject != "" and stored.subject in here)
            if not reached:
                continue
            found = {stored.digest, *references(store.manifests.content(stored.digest))}
            if not found <= here:
                here |= found
                changed = True
    removed = 0
    with store.db.write() as connection:
        for repository, stored in rows:
            if stored.digest in kept[repository]:
                continue
            done = connection.execute(
                "DELETE FROM manifests WHERE repository = ? AND digest = ? AND added < ?",
                (repository, stored.digest, before),
            )
            removed += done.rowcount
    return removed


def _drop_chains(store: Store, before: float) -> int:
    """Drop links of 2014 that are in no tag's ancestry."""
    with store.db.write() as connection:
        done = connection.execute(
            "DELETE FROM images WHERE id NOT IN ("
            "WITH RECURSIVE alive (id) AS ("
            "SELECT image FROM tags WHERE image != '' "
            "UNION SELECT id FROM images WHERE seen > ? "
            "UNION SELECT i.parent FROM images i JOIN alive a ON i.id = a.id WHERE i.parent != '') "
            "SELECT id FROM alive)",
            (before,),
        )
        connection.execute("DELETE FROM members WHERE image NOT IN (SELECT id FROM images)")
        return done.rowcount
