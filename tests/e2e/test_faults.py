"""``lading faults``: rules at run time, seen by a user whose commands meet them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lading.testing.daemon import Daemon, busybox_image, nothing_left

pytestmark = pytest.mark.root

RUN = ("run", "--rm", "--network", "none", "busybox", "echo", "hi")


@pytest.fixture(scope="module")
def faulty(daemon: Daemon) -> Iterator[Daemon]:  # that one stands first, it outlives this one
    with nothing_left(), Daemon("--extension=faults") as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


def test_a_rule_fails_a_run_once_and_is_listed_and_removed(faulty: Daemon) -> None:
    words = ("faults", "add", "fail", "--role", "filesystem", "--hook", "prepare")
    flags = ("--error", "ENOSPC", "--times", "1")
    rule = faulty.client("lading", *words, *flags).stdout.decode().strip()
    failed = faulty.client("lading", *RUN, check=False)
    assert failed.returncode != 0
    assert b"No space left on device" in failed.stderr
    assert faulty.client("lading", *RUN).stdout == b"hi\n"
    head, row = faulty.client("lading", "faults", "ls").stdout.decode().splitlines()
    assert head.split() == ["RULE", "FITTED", "WHAT"]
    assert row.split()[0] == rule
    assert int(row.split()[1]) >= 2
    assert "fail (ENOSPC) before filesystem.prepare (*), 1 times" in row
    assert faulty.client("lading", "faults", "rm", rule).stdout.decode().strip() == rule
    assert len(faulty.client("lading", "faults", "ls").stdout.splitlines()) == 1


def test_a_rule_holds_in_the_monitor_of_a_container_that_runs(faulty: Daemon) -> None:
    faulty.client("lading", "run", "-d", "--network", "none", "--name", "x", "busybox", "top")
    faulty.client("lading", "faults", "add", "fail", "--hook", "exec", "--message", "not today")
    failed = faulty.client("lading", "exec", "x", "true", check=False)
    assert failed.returncode != 0
    assert b"not today" in failed.stdout + failed.stderr
    faulty.client("lading", "faults", "clear")
    faulty.client("lading", "exec", "x", "true")


def test_a_wrong_rule_and_a_daemon_without_the_extension(faulty: Daemon, daemon: Daemon) -> None:
    words = ("faults", "add", "fail", "--error", "ENOTHING")
    failed = faulty.client("lading", *words, check=False)
    assert (failed.returncode, b'no error "ENOTHING"' in failed.stderr) == (1, True)
    failed = daemon.client("lading", *words, check=False)
    assert b'add "faults" to its extensions' in failed.stderr
    missing = faulty.client("lading", "faults", "rm", "nothing", check=False)
    assert b'no rule "nothing" is in force' in missing.stderr
