"""The kit of the chosen plugin's role: what ``pytest --lading-plugin NAME`` collects."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from lading.hooks.registry import Remote
from lading.testing import _chosen


def _test_class() -> type:
    chosen = _chosen.chosen
    assert chosen is not None, "this module is collected by --lading-plugin"
    origin = chosen.origin
    kit = importlib.import_module(f"lading.testing.{origin.role}")
    base = getattr(kit, f"{origin.role.capitalize()}Conformance")

    def factory(self: object) -> Any:
        """The plugin's own maker."""
        return chosen.maker

    def remote(self: object) -> Remote:
        """A repository of which nobody has heard yet."""
        place = chosen.remote
        return replace(place, repository=f"{place.repository}-{uuid4().hex[:12]}")

    members: dict[str, Any] = {
        "__doc__": f"All rules of the {origin.role} role.",
        "options": chosen.options,
        "name": origin.name,
        "target": origin.target,
    }
    if hasattr(base, "factory"):
        members["factory"] = pytest.fixture(factory)
    if hasattr(base, "remote"):
        members["remote"] = pytest.fixture(remote)
    made = type("TestPlugin", (base,), members)
    return pytest.mark.root(made) if origin.role in ("isolation", "filesystem") else made


TestPlugin = _test_class()
