"""The contract, held by OCI runtime binaries."""

from __future__ import annotations

import pytest

from lading.testing.isolation import Factory, IsolationConformance
from lading_isolation_oci import Runtime


class _Conformance(IsolationConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Runtime


@pytest.mark.root
class TestRunc(_Conformance):
    name = "runc"


@pytest.mark.root
class TestCrun(_Conformance):
    name = "crun"
