"""What all tests of builds start from."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def classic(monkeypatch: pytest.MonkeyPatch) -> None:
    """docker's own builder needs what a daemon without BuildKit lacks."""
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
