"""The contract, held by LXC."""

from __future__ import annotations

import pytest

from lading.testing.isolation import Factory, IsolationConformance
from lading_isolation_lxc import Lxc


@pytest.mark.root
class TestLxc(IsolationConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Lxc
