"""Calls in any order: containers live as a model says, across kills of the daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)

from lading.testing.daemon import Daemon
from lading.testing.waiting import PATIENCE_SECONDS

from .conftest import Target
from .shapes import quick

pytestmark = pytest.mark.root

#: What each call answers in each state, and the state after it. Absent: 409, nothing changes.
CREATED, RUNNING, PAUSED, EXITED = "created", "running", "paused", "exited"
CALLS: dict[str, dict[str, tuple[int, str]]] = {
    "start": {
        CREATED: (204, RUNNING),
        EXITED: (204, RUNNING),
        RUNNING: (304, RUNNING),
    },
    "stop": {
        RUNNING: (204, EXITED),
        PAUSED: (204, EXITED),
        CREATED: (304, CREATED),
        EXITED: (304, EXITED),
    },
    "kill": {RUNNING: (204, EXITED), PAUSED: (204, EXITED)},
    "pause": {RUNNING: (204, PAUSED)},
    "unpause": {PAUSED: (204, RUNNING)},
    "restart": dict.fromkeys((CREATED, RUNNING, EXITED, PAUSED), (204, RUNNING)),
}


class Life(RuleBasedStateMachine):
    """A few containers at a time."""

    target: Target

    containers = Bundle("containers")

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, str] = {}
        self.killed = False

    @rule(into=containers)  # type: ignore[arg-type]  # of a bundle's rule, too
    def create(self) -> str:
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "StopSignal": "KILL",
            "HostConfig": {"NetworkMode": "none"},
        }
        status, made = self.target.call("POST", "/containers/create", body)
        assert status == 201
        self.states[made["Id"]] = CREATED
        return str(made["Id"])

    @rule(container=containers, call=st.sampled_from(sorted(CALLS)))
    def change(self, container: str, call: str) -> None:
        before = self.states[container]
        wanted, after = CALLS[call].get(before, (409, before))
        query: dict[str, Any] = {"t": 5} if call in ("stop", "restart") else {}
        status, answer = self.target.call("POST", f"/containers/{container}/{call}", **query)
        assert status == wanted, (before, call, answer)
        self.states[container] = after
        self._check(container)

    @rule(container=containers)
    def execute(self, container: str) -> None:
        path = f"/containers/{container}/exec"
        status, made = self.target.call("POST", path, {"Cmd": ["true"]})
        if self.states[container] != RUNNING:
            assert status == 409
            return
        status, _ = self.target.call("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        assert status == 200
        _eventually(lambda: self.target.call("GET", f"/exec/{made['Id']}/json")[1]["ExitCode"], 0)

    @rule(container=containers)
    def commit(self, container: str) -> None:
        status, image = self.target.call("POST", "/commit", container=container)
        assert status == 201
        status, _ = self.target.call("DELETE", f"/images/{image['Id']}")
        assert status == 200
        self._check(container)

    @rule(container=consumes(containers), force=st.booleans())
    def remove(self, container: str, force: bool) -> None:
        alive = self.states[container] in (RUNNING, PAUSED)
        path = f"/containers/{container}"
        status, _ = self.target.call("DELETE", path, force=int(force))
        if alive and not force:
            assert status == 409
            status, _ = self.target.call("DELETE", path, force=1)
        assert status == 204
        assert self.target.call("GET", f"{path}/json")[0] == 404
        del self.states[container]

    @rule()
    def kill_the_daemon(self) -> None:
        if self.killed or not self.states:
            return  # once is enough: it takes a second or two
        self.killed = True
        daemon: Daemon = self.target.daemon
        daemon.kill()
        daemon.start()
        for container in self.states:
            self._check(container)

    def _check(self, container: str) -> None:
        def state() -> str:
            _, shown = self.target.call("GET", f"/containers/{container}/json")
            return str(shown["State"]["Status"])

        _eventually(state, self.states[container])

    def teardown(self) -> None:
        for container in self.states:
            assert self.target.call("DELETE", f"/containers/{container}", force=1)[0] == 204


def _eventually(read: Callable[[], Any], wanted: object) -> None:
    """A signal's effect follows its answer."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (found := read()) != wanted:
        assert time.monotonic() < give_up, f"expected {wanted}, got {found}"
        time.sleep(0.01)


def test_any_order_of_calls_agrees_with_the_model(scratch_daemon: Daemon) -> None:
    Life.target = Target(scratch_daemon)
    examples = 5 * int(os.environ.get("LADING_FUZZ", "1"))
    wanted = settings(quick(1), max_examples=examples, stateful_step_count=15)
    run_state_machine_as_test(Life, settings=wanted)
    Life.target.tidy()
