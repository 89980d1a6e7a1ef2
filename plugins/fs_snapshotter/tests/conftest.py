"""A containerd for all tests of this plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lading.testing.containerd import Containerd, running_containerd


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    with running_containerd("btrfs") as running:
        yield running
