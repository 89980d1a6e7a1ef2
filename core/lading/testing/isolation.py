"""The conformance kit of the isolation role: a backend that passes it keeps the contract.

A backend's whole conformance file::

    import pytest
    from lading.testing.isolation import Factory, IsolationConformance
    from my_backend import MyBackend

    @pytest.mark.root
    class TestMyBackend(IsolationConformance):
        @pytest.fixture
        def factory(self) -> Factory:
            return MyBackend

Each test holds one rule, which its docstring states and a failure repeats. What a backend does not
declare as a capability is skipped; a host that cannot run it skips everything with the backend's
own reason. ``name`` and ``options`` are the backend's in the configuration. The containers' root is
the host's static busybox. :class:`KitBase` has the fixtures alone, for a backend's other tests.
"""

from __future__ import annotations

from lading.testing._isolation_case import Box, Case, Factory, Json, KitBase
from lading.testing._isolation_control import Control
from lading.testing._isolation_hooks import Hooks
from lading.testing._isolation_life import LifeCycle, traces
from lading.testing._isolation_view import View, mount, read_terminal, remap, skip_unless_mappable

__all__ = [
    "Box",
    "Case",
    "Control",
    "Factory",
    "Hooks",
    "IsolationConformance",
    "Json",
    "KitBase",
    "LifeCycle",
    "View",
    "mount",
    "read_terminal",
    "remap",
    "skip_unless_mappable",
    "traces",
]


class IsolationConformance(LifeCycle, View, Hooks, Control):
    """All rules of ``lading.hooks.isolation``."""
