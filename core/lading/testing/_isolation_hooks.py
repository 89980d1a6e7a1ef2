"""Rules of the isolation role: OCI hooks (runtime-spec, "POSIX-platform Hooks")."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.errors import LadingError
from lading.testing._isolation_case import Case, KitBase


class Hooks(KitBase):
    """Programs of the host that run at points of a container's life."""

    def test_hooks(self, case: Case) -> None:
        """OCI hooks run at their points, with the state on their standard input."""
        case.can("hooks")
        log = case.root / "log"
        points = ("createRuntime", "createContainer", "poststart", "poststop")
        hooks = {
            point: [
                {
                    "path": "/bin/sh",
                    "args": ["sh", "-c", f'grep -o \'"status": *"[a-z]*"\' > {log}.{point}'],
                }
            ]
            for point in points
        }
        case.run("true", edit=lambda c: c.update(hooks=hooks))
        seen = [Path(f"{log}.{p}").read_text().split('"')[-2] for p in points]
        case.expect(["creating", "creating", "stopped"], [*seen[:2], seen[3]])

    def test_failing_hook(self, case: Case) -> None:
        """A hook that fails before the start fails the creation."""
        case.can("hooks")
        hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo broken >&2; exit 3"]}
        edit = lambda c: c.update(hooks={"createRuntime": [hook]})  # noqa: E731
        case.refused(Exception, lambda: case.box("true", edit=edit))

    @pytest.mark.parametrize("point", ["startContainer", "poststart"])
    def test_failing_hook_at_the_start(self, case: Case, point: str) -> None:
        """After a hook that fails around the start the container does not go on."""
        case.can("hooks")
        hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
        try:
            box = case.box("sleep", "1000", edit=lambda c: c.update(hooks={point: [hook]}))
        except LadingError:
            return
        try:
            box.start()
        except LadingError:
            pass
        case.expect(True, box.wait() != 0)

    def test_hook_that_does_not_read_its_state(self, case: Case) -> None:
        """A hook may end without reading its input, were that more than a pipe holds."""
        case.can("hooks")
        points = ("createRuntime", "poststart", "poststop")
        hooks = {point: [{"path": "/bin/true", "args": ["true"]}] for point in points}
        edit = lambda c: c.update(hooks=hooks, annotations={"long": "x" * 200_000})  # noqa: E731
        case.expect(0, case.run("true", edit=edit).code)

    def test_hook_that_hangs(self, case: Case) -> None:
        """A hook that is not done within its timeout has failed."""
        case.can("hooks")
        hook = {"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "timeout": 1}
        edit = lambda c: c.update(hooks={"createRuntime": [hook]})  # noqa: E731
        case.refused(Exception, lambda: case.box("true", edit=edit))

    def test_hook_environment(self, case: Case) -> None:
        """A hook has the environment that its entry names, and no other."""
        case.can("hooks")
        seen = case.root / "environment"
        hook = {
            "path": "/bin/sh",
            "args": ["sh", "-c", f"/usr/bin/env > {seen}"],
            "env": ["ONLY=this"],
        }
        case.run("true", edit=lambda c: c.update(hooks={"createRuntime": [hook]}))
        found = {row.partition("=")[0] for row in seen.read_text().splitlines()}
        # The shell's own.
        case.expect({"ONLY"}, found - {"PWD", "OLDPWD", "SHLVL", "_"})

    def test_failing_poststop_hook(self, case: Case) -> None:
        """A hook that fails after the end is only warned of: the container goes nevertheless."""
        case.can("hooks")
        hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
        case.expect(0, case.run("true", edit=lambda c: c.update(hooks={"poststop": [hook]})).code)
