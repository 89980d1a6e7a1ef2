"""One daemon, all backends at once; it goes and comes back, and keeps them all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Engine, Pair, pairs, text
from .conftest import names as names_of

pytestmark = pytest.mark.root

COUNT = "i=0; while :; do i=$((i+1)); echo $i; echo $i > /count; usleep 50000; done"


def states(engine: Engine, names: list[str]) -> dict[str, dict[str, Any]]:
    shown = json.loads(text(engine.client("lading", "inspect", *names)))
    return {row["Name"].lstrip("/"): row for row in shown}


def half(cells: list[Pair]) -> list[Pair]:
    """Every second cell, as on a chessboard: every backend is in it, with several others."""
    width = len(names_of("filesystem"))
    if width < 2 or len(cells) < 2 * width:
        return cells
    return [cell for n, cell in enumerate(cells) if (n // width + n % width) % 2 == 0]


def test_one_daemon_keeps_containers_of_all_backends(engine: Engine) -> None:
    """Acceptance: four filesystem and three isolation backends at once, over restarts."""
    cells = {f"together-{pair}": pair for pair in half(pairs())}
    assert {pair.isolation for pair in cells.values()} == set(names_of("isolation"))
    assert {pair.filesystem for pair in cells.values()} == set(names_of("filesystem"))
    names = list(cells)
    for name, pair in cells.items():
        words = ["run", "-d", "--name", name, *pair.words, "busybox", "sh", "-c", COUNT]
        engine.client(pair.client, *words)
    before = states(engine, names)
    engine.kill()
    engine.start()
    after = states(engine, names)
    for name, pair in cells.items():
        assert after[name]["State"]["Running"], engine.log()
        assert after[name]["State"]["Pid"] == before[name]["State"]["Pid"]
        first = int(engine.client(pair.client, "exec", name, "cat", "/count").stdout or b"0")
        further = f"until [ `cat /count` -gt {first} ] 2>/dev/null; do usleep 10000; done"
        engine.client(pair.client, "exec", name, "sh", "-c", further)
        lines = text(engine.client(pair.client, "logs", name)).split()
        assert lines[:20] == [str(n) for n in range(1, 21)]
    engine.stop()
    engine.start()
    for name, pair in cells.items():
        engine.client(pair.client, "stop", "-t", "0", name)
        assert "A /count" in text(engine.client(pair.client, "diff", name)).splitlines()
        engine.client(pair.client, "start", name)
    engine.kill()
    engine.start()
    assert all(row["State"]["Running"] for row in states(engine, names).values())
    engine.client("lading", "rm", "-f", *names)
