"""The conformance kit of the filesystem role: a backend that passes it keeps the contract.

A backend's whole conformance file::

    import pytest
    from lading.testing.filesystem import Factory, FilesystemConformance
    from my_backend import MyBackend

    @pytest.mark.root
    class TestMyBackend(FilesystemConformance):
        @pytest.fixture
        def factory(self) -> Factory:
            return MyBackend

The factory must be importable: one rule is tried in another process.

Each test holds one rule, which its docstring states and a failure repeats. What a backend does not
declare as a capability is skipped; a host that cannot run it skips everything with the backend's
own reason. Where the data directory must lie on a certain filesystem, override ``tmp_path`` in the
class with a fixture that gives a directory on it. ``options`` is the backend's configuration.
"""

from __future__ import annotations

from lading.testing._filesystem_case import Case, Factory
from lading.testing._filesystem_layers import Layers
from lading.testing._filesystem_life import LifeCycle
from lading.testing._filesystem_limits import Limits
from lading.testing._filesystem_union import UnionTraps

__all__ = [
    "Case",
    "Factory",
    "FilesystemConformance",
    "Layers",
    "LifeCycle",
    "Limits",
    "UnionTraps",
]


class FilesystemConformance(LifeCycle, UnionTraps, Layers, Limits):
    """All rules of ``lading.hooks.filesystem``."""
