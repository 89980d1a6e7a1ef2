"""The contract, held by overlayfs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lading.testing.filesystem import Factory, FilesystemConformance, Limits
from lading.testing.volumes import loop_volume
from lading_fs_overlay import Overlay


@pytest.mark.root
class TestOverlay(FilesystemConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Overlay


class TestOverlayVolatile(TestOverlay):
    options: Mapping[str, Any] = {"volatile": True}


class TestOverlayUserAttributes(TestOverlay):
    options: Mapping[str, Any] = {"userxattr": True}


@pytest.mark.root
class TestOverlayLimits(Limits):
    """On XFS with project quotas."""

    @pytest.fixture
    def factory(self) -> Factory:
        return Overlay

    @pytest.fixture
    def tmp_path(self, tmp_path: Path) -> Iterator[Path]:
        with loop_volume("xfs", tmp_path, options="prjquota", size=400 << 20) as place:
            yield place
