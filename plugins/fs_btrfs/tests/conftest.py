"""A btrfs filesystem in a file, where this host can make one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.volumes import loop_volume


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with loop_volume("btrfs", tmp_path_factory.mktemp("btrfs")) as place:
        yield place
