"""The contract, held by overlayfs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lading.testing.filesystem import Factory, FilesystemConformance
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
