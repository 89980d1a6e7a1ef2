"""The conformance kit of the extension role: one that passes it does the daemon no harm.

An extension's test file::

    from lading.testing.extension import ExtensionConformance

    class TestMine(ExtensionConformance):
        target = "my_extension:Mine"

Each test holds one rule, which its docstring states.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pluggy
import pytest

from lading.backends import ROLES, Loaded, Origin, assemble
from lading.errors import Conflict
from lading.hooks.common import PROJECT, Context
from lading.hooks.extension import Extension, hook_names, main_protocol

#: Events of every kind, with the members that all of them have.
_KINDS = ("container", "image", "network", "volume", "daemon")


class ExtensionConformance:
    """Subclass it and name the extension: ``target`` as an entry point does, ``options`` of it."""

    target: ClassVar[str] = ""
    options: ClassVar[dict[str, Any]] = {}

    def load(self, place: Path) -> Loaded[Extension]:
        """The extension, made as a daemon does at its start; skips where it cannot work."""
        context = Context("tested", place / "data", place / "run", self.options)
        loaded = assemble(Origin("extension", "tested", self.target), context)
        if not loaded.probe.usable:
            pytest.skip(f"{loaded.probe.reason} ({loaded.probe.remedy})")
        return loaded

    def test_it_loads(self, tmp_path: Path) -> None:
        """Its hooks are those of the contract, with their parameters."""
        self.load(tmp_path)

    def test_the_client_makes_it_too(self) -> None:
        """register_commands runs in the client: the constructor touches nothing, imports little."""
        module, _, attribute = self.target.partition(":")
        code = (
            "import importlib, os, pathlib, sys\n"
            "from lading.hooks import Context\n"
            f"made = getattr(importlib.import_module({module!r}), {attribute!r})\n"
            "nowhere = pathlib.Path(os.devnull)\n"
            "made(Context('tested', nowhere, nowhere))\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, f"expected no error, got {done.stderr}"

    def test_commands_have_names_of_their_own(self, tmp_path: Path) -> None:
        """register_commands adds names that are free; the targets can be imported."""
        taken: dict[str, str] = {}

        class Commands:
            def add(self, name: str, target: str, help: str) -> None:
                """Keep it."""
                if name in taken:
                    raise Conflict(f'command "{name}": the name is taken')
                taken[name] = target
                assert help, f'expected a line of help for "{name}", got none'

        self.load(tmp_path).hook.register_commands(commands=Commands())
        for target in taken.values():
            module, _, attribute = target.partition(":")
            assert hasattr(__import__(module, fromlist=[attribute]), attribute), target

    def test_routes_do_not_take_dockers(self, tmp_path: Path) -> None:
        """register_routes adds routes below a name of the extension's own."""
        added: list[str] = []

        class Routes:
            def add(self, method: str, pattern: str, handler: Any) -> None:
                """Keep it."""
                assert callable(handler)
                added.append(pattern)

        self.load(tmp_path).hook.register_routes(routes=Routes())
        dockers = ("containers", "images", "networks", "volumes", "exec", "build", "info", "events")
        for pattern in added:
            assert pattern.startswith("/"), f'expected a path, got "{pattern}"'
            assert pattern.split("/")[1] not in dockers, f'expected its own name, got "{pattern}"'

    def test_any_event_is_taken(self, tmp_path: Path) -> None:
        """event sees each event, as the API gives it, and does not raise."""
        hook = self.load(tmp_path).hook
        for kind in _KINDS:
            actor = {"ID": "1" * 64, "Attributes": {"name": "x", "image": "y"}}
            event = {"Type": kind, "Action": "some", "Actor": actor, "scope": "local"}
            hook.event(event=json.loads(json.dumps({**event, "time": 1, "timeNano": 10**9})))

    def test_hooks_are_quick(self, tmp_path: Path) -> None:
        """Hooks run in the thread of the request, and take milliseconds, not seconds."""
        hook = self.load(tmp_path).hook
        began = time.monotonic()
        hook.before_image(action="pull", reference="nobody/wants:this")
        assert time.monotonic() - began < 5, "expected milliseconds, got seconds"

    @pytest.mark.parametrize("role", ROLES)
    def test_wrappers_fit_their_role(self, tmp_path: Path, role: str) -> None:
        """wrap returns None or an object whose methods are wrappers of the role's hooks."""
        wrapper = self.load(tmp_path).hook.wrap(role=role, name="any")
        if wrapper is None:
            return
        manager = pluggy.PluginManager(PROJECT)
        protocol = main_protocol(role)
        manager.add_hookspecs(protocol)
        manager.register(wrapper)
        for name in hook_names(protocol):
            for hook in getattr(manager.hook, name).get_hookimpls():
                assert hook.wrapper, f'expected a wrapper of "{name}", got a hook of its own'
