"""A hook that hangs keeps its own container busy: who asks for that one is told so, in time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lading.testing.daemon import Daemon, busybox_image, nothing_left
from lading.testing.waiting import until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that gives hooks two seconds, and the extension that makes them hang."""
    config = tmp_path_factory.mktemp("faulty") / "lading.toml"
    config.write_text('hook-timeout = 2\nextensions = ["faults"]\n')
    with nothing_left(), Daemon(f"--config-file={config}") as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running
        # What hangs still would keep its containers from being removed.
        running.client("lading", "faults", "clear")
        running.kill()
        running.start()


def hang(daemon: Daemon, role: str, hook: str) -> None:
    """The next call of the hook hangs, the others do not."""
    flags = ["--role", role, "--hook", hook, "--seconds", "3600", "--times", "1"]
    daemon.client("lading", "faults", "add", "delay", *flags)


def fitted(daemon: Daemon) -> bool:
    """Whether a call has come to the last rule made, and so hangs."""
    return bool(daemon.api("GET", "/lading/faults")[-1]["fitted"])


def served(daemon: Daemon, name: str) -> None:
    """What needs no hook of this container, and other containers, come at once."""
    done = daemon.client("lading", "run", "--rm", "busybox", "echo", "on", timeout=30)
    assert done.stdout == b"on\n"
    rows = daemon.client("lading", "ps", "-a", "--format", "{{.Names}}", timeout=30).stdout
    assert name in rows.decode().splitlines()
    daemon.client("lading", "inspect", name, timeout=30)


def is_busy(daemon: Daemon, what: str, *arguments: str) -> None:
    done = daemon.client("lading", *arguments, check=False, timeout=60)
    assert done.returncode != 0
    said = done.stderr.decode()
    assert f"is busy: {what} has been under way for" in said, said
    assert "restart of ladingd" in said


@pytest.mark.parametrize(
    ("role", "hook", "command", "what"),
    [
        ("filesystem", "mounts", "start", "its start"),
        ("isolation", "pause", "pause", "a pause"),
        ("network", "attach", "network connect more", "its connection to a network"),
    ],
)
def test_requests_for_a_container_whose_hook_hangs_fail_in_time(
    faulty: Daemon, role: str, hook: str, command: str, what: str
) -> None:
    name = f"{hook}-{command.split()[0]}"
    # A network of its own: namespaces on the default one are made ahead.
    faulty.client("lading", "network", "create", name)
    faulty.client("lading", "network", "create", "more", check=False)
    verb = "create" if command == "start" else "run"
    flags = [] if verb == "create" else ["-d"]
    faulty.client("lading", verb, *flags, "--name", name, "--net", name, "busybox", "sleep", "99")
    hang(faulty, role, hook)
    with faulty.begin(*command.split(), name) as hanging:
        try:
            until(lambda: fitted(faulty), "the hook is not called")
            served(faulty, name)
            is_busy(faulty, what, "start" if command == "start" else "unpause", name)
            is_busy(faulty, what, "rm", "-f", name)
            assert hanging.poll() is None
        finally:
            hanging.kill()


def test_an_end_that_hangs(faulty: Daemon) -> None:
    faulty.client("lading", "run", "-d", "--name", "ends", "busybox", "sleep", "99")
    hang(faulty, "network", "unpublish")
    hang(faulty, "isolation", "delete")
    with faulty.begin("rm", "-f", "ends") as hanging:
        try:
            assert hanging.poll() is None
            assert faulty.client("lading", "wait", "ends", timeout=30, check=False)
            served(faulty, "ends")
            is_busy(faulty, "the release of its isolation", "rm", "-f", "ends")
        finally:
            hanging.kill()


def test_many_ends_that_hang_hold_up_no_other(faulty: Daemon) -> None:
    config = {"Image": "busybox", "Cmd": ["sleep", "99"]}
    ids = [faulty.api("POST", "/containers/create", config)["Id"] for _ in range(18)]
    for one in ids:
        faulty.api("POST", f"/containers/{one}/start")
    flags = ["--role", "isolation", "--hook", "delete", "--seconds", "3600", "--times", "18"]
    faulty.client("lading", "faults", "add", "delay", *flags)
    for one in ids:
        os.kill(faulty.api("GET", f"/containers/{one}/json")["State"]["Pid"], signal.SIGKILL)
    done = faulty.client("lading", "run", "busybox", "sh", "-c", "exit 3", check=False)
    assert done.returncode == 3


def test_the_daemon_ends_although_an_end_hangs(faulty: Daemon) -> None:
    faulty.client("lading", "run", "-d", "--name", "last", "busybox", "sleep", "99")
    hang(faulty, "isolation", "delete")
    faulty.client("lading", "kill", "last")
    is_busy(faulty, "the release of its isolation", "rm", "-f", "last")
    faulty.stop()
    faulty.start()
    assert faulty.client("lading", "wait", "last").stdout == b"137\n"
    faulty.client("lading", "rm", "last")
