"""The contract, held by containerd's own snapshotters."""

from __future__ import annotations

from typing import ClassVar
from uuid import uuid4

import pytest

from lading.testing.containerd import Containerd
from lading.testing.filesystem import Case, Factory, FilesystemConformance
from lading_fs_snapshotter import Snapshotter


@pytest.mark.root
class TestOverlayfs(FilesystemConformance):
    snapshotter: ClassVar[str] = "overlayfs"

    @pytest.fixture
    def factory(self) -> Factory:
        return Snapshotter

    @pytest.fixture(autouse=True)
    def _options(self, containerd: Containerd) -> None:
        # Each test its own namespace: the contract speaks of all snapshots of a backend.
        self.options = {
            "address": containerd.address,
            "namespace": f"kit-{uuid4().hex[:12]}",
            "snapshotter": self.snapshotter,
        }


class TestNative(TestOverlayfs):
    snapshotter = "native"

    @pytest.mark.xfail(strict=False, reason="containerd copies directories without their times")
    def test_a_child_shows_exactly_its_parent(self, case: Case) -> None:
        """As the kit has it."""
        super().test_a_child_shows_exactly_its_parent(case)


class TestBtrfs(TestOverlayfs):
    snapshotter = "btrfs"
