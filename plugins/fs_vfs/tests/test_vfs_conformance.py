"""The contract, held by plain directories."""

from __future__ import annotations

import pytest

from lading.testing.filesystem import Factory, FilesystemConformance
from lading_fs_vfs import Vfs


@pytest.mark.root
class TestVfs(FilesystemConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Vfs
