"""Broken plugins are listed with their reason and stop nothing."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lading import backends
from lading.backends import Backends, Failed, Origin, assemble
from lading.errors import LadingError, NotFound, Unavailable, Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.filesystem import Snapshot, Usage


class Whole:
    """A filesystem backend that has every hook and does nothing."""

    spec_version = 1
    capabilities = frozenset({"quota-size"})

    def __init__(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def probe(self) -> Probe:
        return Probe(usable=True, version="1")

    @hookimpl
    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        return [Mount("bind", f"/{key}")]

    @hookimpl
    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        return []

    @hookimpl
    def commit(self, key: str, name: str) -> None: ...

    @hookimpl
    def mounts(self, key: str) -> Sequence[Mount]:
        return []

    @hookimpl
    def stat(self, key: str) -> Snapshot | None:
        return None

    @hookimpl
    def remove(self, key: str) -> None: ...

    @hookimpl
    def usage(self, key: str) -> Usage:
        return Usage(0, 0)

    @hookimpl
    def walk(self) -> Sequence[Snapshot]:
        return []


class Misspelt(Whole):
    @hookimpl
    def comit(self, key: str, name: str) -> None: ...


class Careless(Whole):
    @hookimpl
    def commit(self, key: str) -> None: ...  # type: ignore[override]


class Lacking:
    spec_version = 1
    capabilities: frozenset[str] = frozenset()

    def __init__(self, context: Context) -> None: ...

    probe = Whole.probe


class FromTheFuture(Whole):
    spec_version = 99


class Boastful(Whole):
    capabilities = frozenset({"layer-directory"})


class Hanging(Whole):
    @hookimpl
    def probe(self) -> Probe:
        time.sleep(3600)
        return Probe(usable=True)


class Untrue(Whole):
    @hookimpl
    def probe(self) -> Probe:
        return "yes"  # type: ignore[return-value]


class Raising(Whole):
    def __init__(self, context: Context) -> None:
        raise ValueError("bad day")


class Mended(Whole):
    """Works from the moment that a file is there."""

    @hookimpl
    def probe(self) -> Probe:
        there = (self.context.data / "mended").exists()
        return Probe(usable=there, reason="" if there else "nobody listens")


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Assemble a class of this module as if an entry point named it."""
    module = ModuleType("some_plugin")
    monkeypatch.setitem(sys.modules, "some_plugin", module)

    def load(cls: type) -> Any:
        module.backend = cls  # type: ignore[attr-defined]
        origin = Origin("filesystem", "some", "some_plugin:backend", "some-dist", "1.0")
        return assemble(origin, Context("some", tmp_path / "data", tmp_path / "run"))

    return load


def test_a_whole_backend_is_called_by_keyword(plugin: Any) -> None:
    loaded = plugin(Whole)
    assert loaded.hook.prepare(key="k", parent="", labels={}) == [Mount("bind", "/k")]
    assert loaded.probe.usable
    assert loaded.capabilities == {"quota-size"}


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Misspelt, "comit"),
        (Careless, "hook commit does not take name; its signature is commit(self, key"),
        (Lacking, "lacks the hook"),
        (FromTheFuture, "written for version 99 of the filesystem contract"),
        (Boastful, "lacks the hook layer_directory"),
        (Untrue, "probe returned str"),
        (Raising, "bad day"),
    ],
)
def test_a_broken_backend_says_why(plugin: Any, cls: type, reason: str) -> None:
    with pytest.raises(Exception, match=re.escape(reason)):
        plugin(cls)


def test_a_hanging_probe_is_given_up(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "PROBE_DEADLINE", 0.2)
    with pytest.raises(LadingError, match="probe did not finish"):
        plugin(Hanging)


def test_what_was_mended_meanwhile_is_used_without_a_restart(plugin: Any, tmp_path: Path) -> None:
    found: Backends[Any] = Backends("filesystem", "some", {"some": plugin(Mended)})
    with pytest.raises(Unavailable, match="nobody listens"):
        found.get()
    (tmp_path / "data/mended").touch()
    assert found.get().probe.usable
    assert [b.name for b in found.usable()] == ["some"]


def test_a_missing_capability_is_refused_with_those_there_are(plugin: Any) -> None:
    with pytest.raises(Unsupported, match="quota-size"):
        plugin(Whole).require("layer-directory")


def test_load_keeps_what_fails_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("some_plugin")
    module.Whole, module.Raising = Whole, Raising  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_plugin", module)
    origins = [
        Origin("filesystem", "bad", "some_plugin:Raising", "bad-dist"),
        Origin("filesystem", "gone", "no_such_module_here:X", "gone-dist"),
        Origin("filesystem", "good", "some_plugin:Whole", "good-dist"),
    ]
    monkeypatch.setattr(backends, "discover", lambda role: origins)
    found = backends.load(
        "filesystem", backends.contexts_under(tmp_path, tmp_path, "filesystem", {}), default="good"
    )
    assert found.get().name == "good"
    assert found.failed["bad"].reason == "ValueError: bad day"
    assert "no_such_module_here" in found.failed["gone"].remedy
    with pytest.raises(Unavailable, match="bad day"):
        found.get("bad")


def test_an_unknown_name_lists_the_known() -> None:
    found: Backends[Any] = Backends("isolation")
    found.failed["odd"] = Failed(Origin("isolation", "odd", "x:y"), "it is odd", "straighten it")
    with pytest.raises(NotFound, match="installed: none"):
        found.get("nosuch")
    with pytest.raises(Unavailable, match=r"it is odd \(straighten it\)"):
        found.get("odd")


@pytest.mark.parametrize("role", backends.ROLES)
def test_installed_backends_declare_only_what_their_contract_knows(
    role: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    make = backends.contexts_under(tmp_path / "data", tmp_path / "run", role, {})
    for origin in backends.discover(role):
        assemble(origin, make(origin.name), (), probe=False)
    assert caplog.messages == []
