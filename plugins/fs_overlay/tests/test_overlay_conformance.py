"""The contract, held by overlayfs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lading.hooks import Context
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

    def test_engines_that_share_a_filesystem_do_not_share_limits(self, tmp_path: Path) -> None:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            backend = Overlay(Context("overlay", tmp_path / name, tmp_path))
            recipe = backend.prepare(key="a", parent="", labels={"lading.size": str(8 << 20)})
            (Path(recipe[0].source) / "f").write_bytes(os.urandom(6 << 20))
