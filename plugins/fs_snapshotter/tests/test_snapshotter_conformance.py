"""The contract, held by containerd's own snapshotters."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

import pytest

from lading.testing.filesystem import Factory, FilesystemConformance
from lading_fs_snapshotter import Snapshotter


@pytest.mark.root
class TestOverlayfs(FilesystemConformance):
    snapshotter: ClassVar[str] = "overlayfs"

    @pytest.fixture
    def factory(self) -> Factory:
        return Snapshotter

    @pytest.fixture(autouse=True)
    def _options(self, containerd: Any) -> None:
        # Each test its own namespace: the contract speaks of all snapshots of a backend.
        self.options = {
            "address": containerd.address,
            "namespace": f"kit-{uuid4().hex[:12]}",
            "snapshotter": self.snapshotter,
        }


class TestNative(TestOverlayfs):
    snapshotter = "native"


class TestBtrfs(TestOverlayfs):
    snapshotter = "btrfs"
