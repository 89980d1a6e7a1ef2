"""The contract, held by system calls alone."""

from __future__ import annotations

import pytest

from lading.testing.isolation import Factory, IsolationConformance
from lading_isolation_native import Native


@pytest.mark.root
class TestNative(IsolationConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Native
