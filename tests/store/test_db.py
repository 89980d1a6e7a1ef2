"""The metadata database, intents and events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.errors import Unavailable
from lading.store.clock import nanoseconds, timestamp
from lading.store.db import Database, Schema
from lading.store.events import Events
from lading.store.intents import Intents

BOATS = Schema("boats", ["CREATE TABLE boats (name TEXT PRIMARY KEY);"])


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "metadata.db", [BOATS])
    yield database
    database.close()


def add(db: Database, name: str, *, durable: bool = True) -> None:
    with db.write(durable=durable) as connection:
        connection.execute("INSERT INTO boats VALUES (?)", (name,))


def names(db: Database) -> list[str]:
    return [row[0] for row in db.rows("SELECT name FROM boats ORDER BY name")]


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_written_is_there_for_the_next_daemon(tmp_path: Path, durable: bool) -> None:
    first = Database(tmp_path / "m.db", [BOATS])
    add(first, "fram", durable=durable)
    second = Database(tmp_path / "m.db", [BOATS])
    assert names(second) == ["fram"]
    first.close()
    second.close()


def test_a_block_that_raises_leaves_nothing(db: Database) -> None:
    def fail() -> None:
        with db.write() as connection:
            connection.execute("INSERT INTO boats VALUES ('fram')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(db) == []


def test_nested_blocks_are_one_transaction(db: Database) -> None:
    def fail() -> None:
        with db.write():
            add(db, "fram", durable=False)
            assert names(db) == ["fram"], "a reader of the same thread sees the open transaction"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(db) == []


def test_later_steps_of_a_schema_are_applied_once(db: Database) -> None:
    more = "ALTER TABLE boats ADD COLUMN masts INTEGER;\nINSERT INTO boats VALUES ('a', 3);"
    grown = Schema("boats", [*BOATS.steps, more])
    db.migrate(grown)
    db.migrate(grown)
    assert db.rows("SELECT * FROM boats") == [("a", 3)]


def test_metadata_of_a_newer_lading_are_refused_with_a_remedy(db: Database) -> None:
    db.migrate(Schema("boats", [*BOATS.steps, "CREATE TABLE more (x);"]))
    with pytest.raises(Unavailable, match="of version 2, this Lading knows up to 1") as refused:
        db.migrate(BOATS)
    assert "newer" in refused.value.hint


def test_many_threads_may_write_and_read(db: Database) -> None:
    def work(number: int) -> None:
        for step in range(20):
            add(db, f"{number}-{step}", durable=step == 19)
            names(db)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(db)) == 160


def test_an_intent_that_a_crash_left_is_finished_once(db: Database) -> None:
    Intents(db).begin("sink", "fram", {"deep": True})
    done: list[object] = []
    fresh = Intents(db)
    fresh.resume({"sink": lambda name, details: done.append((name, details))})
    fresh.resume({"sink": lambda name, details: done.append((name, details))})
    assert done == [("fram", {"deep": True})]


def test_an_intent_whose_finishing_fails_is_kept(db: Database) -> None:
    intents, tried = Intents(db), []

    def fail(name: str, details: object) -> None:
        tried.append(name)
        raise OSError("no")

    intents.begin("sink", "fram")
    intents.resume({"sink": fail})
    intents.resume({"sink": fail})
    assert tried == ["fram", "fram"]


def test_a_finished_intent_is_gone(db: Database) -> None:
    intents = Intents(db)
    with intents.open("sink", "fram"):
        pass
    intents.resume({"sink": lambda name, details: pytest.fail("it was done")})


def test_events_reach_those_who_asked_for_them() -> None:
    events = Events()
    events.publish("container", "create", "c1", {"name": "web", "image": "nginx:1"})
    seen = events.subscribe(since=0, filters={"type": ["container"], "container": ["web"]})
    events.publish("image", "tag", "i1", {"name": "nginx:1"})
    events.publish("container", "exec_start: sh", "c1", {"name": "web"})
    seen.close()
    assert [e.action for e in seen] == ["create", "exec_start: sh"]


def test_old_events_end_at_until() -> None:
    events = Events()
    event = events.publish("network", "create", "n1", {"name": "net"})
    assert list(events.subscribe(since=0, until=event.time_nano)) == [event]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"event": ["exec_start"]}, True),
        ({"event": ["die"]}, False),
        ({"image": ["nginx"]}, True),
        ({"image": ["nginx:1"]}, True),
        ({"image": ["ngin"]}, False),
        ({"label": ["tier=web"]}, True),
        ({"label": ["tier=db"]}, False),
        ({"label": ["tier"]}, True),
        ({"container": ["c1f"]}, True),
        ({"container": ["c2"], "event": ["exec_start"]}, False),
    ],
)
def test_event_filters(filters: dict[str, list[str]], wanted: bool) -> None:
    events = Events()
    attributes = {"name": "web", "image": "nginx:1", "tier": "web"}
    now = events.publish("container", "exec_start: sh", "c1f00", attributes).time_nano
    assert bool(list(events.subscribe(since=0, until=now, filters=filters))) is wanted


def test_a_reader_that_does_not_read_loses_its_stream_not_the_daemon_its_memory() -> None:
    events = Events()
    slow = events.subscribe()
    for number in range(10_000):
        events.publish("container", "create", str(number))
    assert sum(1 for _ in slow) < 5_000


def test_times_go_both_ways() -> None:
    assert timestamp(1_400_000_000_000_000_007) == "2014-05-13T16:53:20.000000007Z"
    assert nanoseconds("2014-05-13T16:53:20.000000007Z") == 1_400_000_000_000_000_007
    assert nanoseconds("2014-05-13T18:53:20+02:00") == 1_400_000_000_000_000_000
