"""The contract of the filesystem role, held by hardlink."""

import pytest
from lading_filesystem_hardlink import Hardlink

from lading.testing.filesystem import Factory, FilesystemConformance


@pytest.mark.root
class TestHardlink(FilesystemConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Hardlink
