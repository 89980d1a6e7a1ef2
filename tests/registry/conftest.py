"""Registries to move images to and from, each kind in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lading.testing.registries import Site, debian_registry, own_registry, real_dockerd

MAKERS = {"own": own_registry, "debian": debian_registry}
KINDS = [
    pytest.param(
        (maker, tls, users), id=f"{maker}{'-tls' if tls else ''}{'-users' if users else ''}"
    )
    for maker in MAKERS
    for tls, users in ((False, False), (False, True), (True, True))
]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory that is not below pytest's, which keeps three runs."""
    with tempfile.TemporaryDirectory(prefix="lading-registry-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Site]:
    """Each kind of registry in turn."""
    maker, tls, users = request.param
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with MAKERS[maker](folder, tls=tls, users=users) as running:
        yield running


@pytest.fixture(scope="module")
def own(scratch: Path) -> Iterator[Site]:
    """Lading's registry, open to all."""
    with own_registry(scratch / "own") as running:
        yield running


@pytest.fixture(scope="module")
def dockerd(scratch: Path) -> Iterator[Callable[..., str]]:
    """A real dockerd: called with the arguments of ``docker``."""
    with real_dockerd(scratch / "dockerd") as docker:
        yield docker
