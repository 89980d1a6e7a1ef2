"""The extension by itself: which rules hold, which calls they fit, what they do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lading import backends
from lading.errors import Conflict, Invalid, NotFound, Unavailable
from lading.hooks import Context
from lading_faults import Faults
from lading_faults.commands import describe
from lading_faults.rules import Rule
from lading_faults.table import Table


def faults(tmp_path: Path, *rules: dict[str, Any]) -> Faults:
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    return Faults(Context("faults", tmp_path / "data", run, {"rules": list(rules)}))


def vfs(tmp_path: Path, *rules: dict[str, Any]) -> Any:
    origin = next(o for o in backends.discover("filesystem") if o.name == "vfs")
    place = Context("vfs", tmp_path / "vfs", tmp_path / "vfs-run")
    return backends.assemble(origin, place, [faults(tmp_path, *rules)]).hook


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({}, "no action"),
        ({"action": "explode"}, 'action "explode"'),
        ({"action": "fail", "hok": "create"}, 'no member "hok"'),
        ({"action": "fail", "nth": "2"}, '"nth" is to be of type int'),
        ({"action": "fail", "nth": 0}, "nth from 1"),
        ({"action": "fail", "probability": 1.5}, "probability from 0 to 1"),
        ({"action": "fail", "error": "ENOTHING"}, 'no error "ENOTHING"'),
        ({"action": "fail", "role": "storage"}, 'role "storage"'),
        ({"action": "delay"}, "needs seconds"),
        ({"action": "kill", "victim": "cat"}, 'victim "cat"'),
    ],
)
def test_a_wrong_rule_is_refused_with_its_reason(
    tmp_path: Path, rule: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid) as refused:
        Rule.of(rule)
    assert reason in str(refused.value)
    probe = faults(tmp_path, rule).probe()
    assert not probe.usable
    assert probe.reason == refused.value.message


def test_before_the_hook_nothing_has_happened_after_it_all_has(tmp_path: Path) -> None:
    rule = {"action": "fail", "hook": "prepare", "error": "conflict", "times": 1}
    filesystem = vfs(tmp_path, rule)
    with pytest.raises(Conflict, match="injected by rule config-1"):
        filesystem.prepare(key="k", parent="", labels={})
    with pytest.raises(NotFound):
        filesystem.stat(key="k")
    filesystem = vfs(tmp_path, {**rule, "when": "after", "message": "lost"})
    with pytest.raises(Conflict, match="lost"):
        filesystem.prepare(key="k", parent="", labels={})
    assert filesystem.stat(key="k").key == "k"


def test_an_errno_is_an_oserror(tmp_path: Path) -> None:
    filesystem = vfs(tmp_path, {"action": "fail", "hook": "commit", "error": "ENOSPC"})
    filesystem.prepare(key="k", parent="", labels={})
    with pytest.raises(OSError, match="No space left"):
        filesystem.commit(key="k", name="n")


def test_the_nth_call_on_and_so_many_times(tmp_path: Path) -> None:
    filesystem = vfs(tmp_path, {"action": "fail", "hook": "walk", "nth": 3, "times": 2})
    outcomes = []
    for _ in range(6):
        try:
            filesystem.walk()
            outcomes.append(True)
        except Unavailable:
            outcomes.append(False)
    assert outcomes == [True, True, False, False, True, True]


def test_a_seed_makes_chance_repeatable() -> None:
    rule = Rule("fail", probability=0.5, seed=7)
    drawn = [rule.acts(n) for n in range(1, 201)]
    assert drawn == [rule.acts(n) for n in range(1, 201)]
    assert 60 < sum(drawn) < 140
    assert drawn != [Rule("fail", probability=0.5, seed=8).acts(n) for n in range(1, 201)]


def test_a_delay_delays(tmp_path: Path) -> None:
    filesystem = vfs(tmp_path, {"action": "delay", "hook": "walk", "seconds": 0.2})
    began = time.monotonic()
    filesystem.walk()
    assert time.monotonic() - began >= 0.2


def test_other_hooks_and_backends_are_left_alone(tmp_path: Path) -> None:
    filesystem = vfs(
        tmp_path,
        {"action": "fail", "backend": "overlay"},
        {"action": "fail", "role": "network"},
        {"action": "fail", "hook": "com*"},
    )
    filesystem.prepare(key="k", parent="", labels={})
    with pytest.raises(Unavailable):
        filesystem.commit(key="k", name="n")


@pytest.mark.parametrize("victim", ["daemon", "caller"])
def test_a_kill_ends_the_process_at_once(tmp_path: Path, victim: str) -> None:
    pid = os.fork()
    if pid == 0:
        filesystem = vfs(tmp_path, {"action": "kill", "hook": "prepare", "victim": victim})
        filesystem.prepare(key="k", parent="", labels={})
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_daemon_that_has_ended_is_not_mistaken_for_another_process(tmp_path: Path) -> None:
    filesystem = vfs(tmp_path, {"action": "kill", "hook": "walk"})
    (tmp_path / "run" / "daemon").write_text(f"{os.getpid()} 1")
    filesystem.walk()


def test_rules_and_counts_are_shared_between_processes(tmp_path: Path) -> None:
    ours, theirs = Table(tmp_path), Table(tmp_path)
    ours.begin([])
    rule = ours.add(Rule("fail"))
    assert theirs.rules() == [rule]
    assert [table.count(rule) for table in (ours, theirs, ours)] == [1, 2, 3]
    ours.remove(rule.id)
    assert theirs.rules() == []
    with pytest.raises(NotFound):
        ours.remove(rule.id)


def test_a_new_daemon_keeps_rules_of_the_command_line_and_renews_configured_ones(
    tmp_path: Path,
) -> None:
    table = Table(tmp_path)
    configured = Rule("fail", id="config-1")
    table.begin([configured])
    added = table.add(Rule("delay", seconds=1))
    table.count(configured)
    table.count(added)
    Table(tmp_path).begin([configured])
    assert list(table.rules()) == [configured, added]
    assert (table.counted(configured), table.counted(added)) == (0, 1)


def test_rules_are_described_in_words() -> None:
    rule = Rule("kill", role="isolation", hook="create", when="after", nth=2, times=1)
    assert describe(rule) == ("kill the daemon after isolation.create (*), from call 2 on, 1 times")
