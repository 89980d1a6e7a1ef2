"""What becomes of a ``delete`` that the runtime calls a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lading.errors import LadingError
from lading.hooks.common import Context
from lading.hooks.isolation import Container
from lading_isolation_oci import Runtime

#: runc 1.3.4's words, after which it has removed all; and what ``state`` then says.
FAKE = """#!/bin/sh
case " $* " in
*" delete "*) say="unable to destroy container: error running poststop hook #0: exit status 3" ;;
*" state "*) {state} ;;
esac
echo "$say" >&2
exit 1
"""
FORGOTTEN = 'say="container does not exist"'
KNOWN = """echo '{"status": "stopped"}'; exit 0"""
BROKEN = 'say="open state.json: input/output error"'
HOOKS = {"poststop": [{"path": "/bin/false"}]}


def deleted(place: Path, state: str, hooks: object) -> Container:
    """A container after ``delete`` by the fake."""
    fake = place / "fake-runtime"
    fake.write_text(FAKE.replace("{state}", state))
    fake.chmod(0o755)
    (place / "state/runtime").mkdir(parents=True)
    (place / "state/pid").write_text("1")
    config = {"hooks": hooks, "linux": {"cgroupsPath": "/lading-test/no-such-group"}}
    (place / "config.json").write_text(json.dumps(config))
    container = Container("c", place, place / "state")
    context = Context("fake", place / "data", place / "run", {"path": str(fake)})
    Runtime(context).delete(container=container)
    return container


def test_failing_poststop_hook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that fails after the end is only warned of, when all else is gone."""
    container = deleted(tmp_path, FORGOTTEN, HOOKS)
    assert list(container.state.iterdir()) == []
    assert "error running poststop hook #0: exit status 3" in caplog.text


@pytest.mark.parametrize(
    ("state", "hooks"),
    [(KNOWN, HOOKS), (BROKEN, HOOKS), (FORGOTTEN, {})],
    ids=["still known", "state unreadable", "no such hook"],
)
def test_other_failures(tmp_path: Path, state: str, hooks: object) -> None:
    """What the runtime may still have, or what no hook explains, stays a failure."""
    with pytest.raises(LadingError):
        deleted(tmp_path, state, hooks)
    assert (tmp_path / "state/pid").exists()
