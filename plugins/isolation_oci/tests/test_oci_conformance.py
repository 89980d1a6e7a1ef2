"""The contract, held by OCI runtime binaries."""

from __future__ import annotations

import pytest

from lading.testing.isolation import Case, Factory, IsolationConformance
from lading_isolation_oci import Runtime


class _Conformance(IsolationConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Runtime


@pytest.mark.root
class TestRunc(_Conformance):
    name = "runc"

    @pytest.mark.xfail(strict=False, reason="runc 1.1.15 starts with 10 MB of its own")
    def test_small_memory_limit(self, case: Case) -> None:
        """As the kit has it."""
        super().test_small_memory_limit(case)


@pytest.mark.root
class TestCrun(_Conformance):
    name = "crun"

    @pytest.mark.xfail(strict=False, reason="crun before 1.9 calls a container created too early")
    def test_hooks(self, case: Case) -> None:
        """As the kit has it."""
        super().test_hooks(case)

    @pytest.mark.parametrize("point", ["startContainer"])
    def test_failing_hook_at_the_start(self, case: Case, point: str) -> None:
        """As the kit has it, without ``poststart``: crun goes on, as runtime-spec 1.1 says."""
        super().test_failing_hook_at_the_start(case, point)
