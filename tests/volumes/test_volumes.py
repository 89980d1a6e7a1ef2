"""Volumes without mounts: names, use, removal, pruning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.errors import Conflict, InUse, Invalid, NotFound
from lading.store.db import Database
from lading.store.events import Events
from lading.volumes import Volumes


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "metadata.db")
    yield database
    database.close()


@pytest.fixture
def volumes(db: Database, tmp_path: Path) -> Volumes:
    return Volumes(db, Events(), tmp_path / "volumes")


def test_a_volume_is_a_directory_that_the_next_daemon_finds(
    volumes: Volumes, db: Database, tmp_path: Path
) -> None:
    made = volumes.create("logs", labels={"tier": "web"})
    (Path(made.mountpoint) / "file").write_text("x")
    again = Volumes(db, Events(), tmp_path / "volumes").get("logs")
    assert again == made
    assert (Path(again.mountpoint) / "file").read_text() == "x"


def test_creating_it_again_gives_the_same(volumes: Volumes) -> None:
    assert volumes.create("logs") == volumes.create("logs")
    with pytest.raises(Conflict):
        volumes.create("logs", options={"type": "tmpfs", "device": "tmpfs"})


@pytest.mark.parametrize("name", ["a/b", "../x", ".hidden", "x y", "a"])
def test_bad_names_are_refused(volumes: Volumes, name: str) -> None:
    with pytest.raises(Invalid, match="includes invalid characters"):
        volumes.create(name)


def test_options_and_drivers_are_checked(volumes: Volumes) -> None:
    with pytest.raises(Invalid, match='invalid option: "colour"'):
        volumes.create("logs", options={"colour": "red"})
    with pytest.raises(Invalid, match='missing required option: "device"'):
        volumes.create("logs", options={"type": "nfs"})
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        volumes.create("logs", "nfs")


def test_a_volume_in_use_is_kept(volumes: Volumes) -> None:
    volumes.create("logs")
    volumes.acquire("logs", "c1")
    with pytest.raises(InUse, match=r"volume is in use - \[c1\]"):
        volumes.remove("logs")
    volumes.release("logs", "c1")
    volumes.remove("logs")
    with pytest.raises(NotFound):
        volumes.get("logs")
    volumes.remove("logs", force=True)


def test_prune_takes_unused_anonymous_ones_and_with_all_named_ones(volumes: Volumes) -> None:
    anonymous = volumes.create()
    (Path(anonymous.mountpoint) / "f").write_bytes(b"12345")
    volumes.create("named")
    volumes.create("used")
    volumes.acquire("used", "c1")
    first = volumes.prune()
    assert (first.deleted, first.space) == ([anonymous.name], 5)
    assert volumes.prune({"all": ["true"]}).deleted == ["named"]
    assert [v.name for v in volumes.list()] == ["used"]


def test_filters(volumes: Volumes) -> None:
    volumes.create("web-logs", labels={"tier": "web"})
    volumes.create("db-data", labels={"tier": "db"})
    volumes.acquire("db-data", "c1")

    def listed(**filters: list[str]) -> list[str]:
        return [v.name for v in volumes.list(filters)]

    assert listed(name=["logs"]) == ["web-logs"]
    assert listed(label=["tier=db"]) == ["db-data"]
    assert listed(dangling=["true"]) == ["web-logs"]
    assert listed(dangling=["0"]) == ["db-data"]
    assert listed(driver=["nfs"]) == []
    with pytest.raises(Invalid, match="invalid filter 'size'"):
        volumes.list({"size": ["1"]})


def test_what_a_crash_left_half_removed_is_swept(
    volumes: Volumes, db: Database, tmp_path: Path
) -> None:
    debris = tmp_path / "volumes" / ".removing-abc"
    debris.mkdir()
    Volumes(db, Events(), tmp_path / "volumes")
    assert not debris.exists()
