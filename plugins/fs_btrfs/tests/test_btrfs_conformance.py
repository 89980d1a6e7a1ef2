"""The contract, held by btrfs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.filesystem import Factory, FilesystemConformance
from lading_fs_btrfs import Btrfs


@pytest.mark.root
class TestBtrfs(FilesystemConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Btrfs

    @pytest.fixture
    def tmp_path(self, volume: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=volume, ignore_cleanup_errors=True) as place:
            yield Path(place)
