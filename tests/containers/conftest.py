"""A world of fakes, and containers in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import World

from lading.containers import Containers


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def containers(world: World) -> Iterator[Containers]:
    made = Containers(world.parts())
    yield made
    made.close()
