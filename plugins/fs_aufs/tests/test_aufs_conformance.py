"""The contract, held by AUFS where the kernel has it."""

from __future__ import annotations

import pytest

from lading.testing.filesystem import Factory, FilesystemConformance
from lading_fs_aufs import Aufs


@pytest.mark.root
class TestAufs(FilesystemConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Aufs
