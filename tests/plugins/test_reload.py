"""Backends are upgraded while their containers run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from throwaway import COPIES, install

from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left
from lading.testing.waiting import until

pytestmark = pytest.mark.root

SOURCE = """
from lading.hooks import hookimpl
from lading_isolation_native import Native

class Backend(Native):
    @hookimpl
    def exec(self, container, process, stdio):
        marked = dict(process, env=[*process["env"], "CODE={code}"])
        return super().exec(container, marked, stdio)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def daemon(site: Path) -> Iterator[Daemon]:
    install(site, "odd", SOURCE.format(code="one"), role="isolation")
    install(site, "copies", COPIES, role="filesystem")
    with nothing_left(), Daemon(environment={"PYTHONPATH": str(site)}) as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


def start(daemon: Daemon, name: str) -> None:
    flags = ["-d", "--name", name, "--runtime", "odd"]
    daemon.client("lading", "run", *flags, "busybox", "sleep", "1000")


def code(daemon: Daemon, name: str) -> str:
    done = daemon.client("lading", "exec", name, "sh", "-c", "echo $CODE")
    return done.stdout.decode().strip()


def version(daemon: Daemon) -> str:
    (row,) = json.loads(daemon.client("lading", "plugin", "inspect", "isolation/odd").stdout)
    return str(row["DistributionVersion"])


def spawners(daemon: Daemon) -> int:
    assert daemon.process is not None
    pid = daemon.process.pid
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += Path(f"/proc/{child}/comm").read_text() == "lading-spawner\n"
    return found


def until_one_spawner(daemon: Daemon) -> None:
    until(lambda: spawners(daemon) == 1, daemon.log)


def test_running_containers_keep_their_code_and_new_ones_get_the_new(
    daemon: Daemon, site: Path
) -> None:
    start(daemon, "old")
    assert (code(daemon, "old"), version(daemon)) == ("one", "1")
    install(site, "odd", SOURCE.format(code="second"), role="isolation", version="2")
    assert daemon.client("lading", "plugin", "reload", "odd").stdout == b"odd\n"
    start(daemon, "new")
    assert (code(daemon, "old"), code(daemon, "new")) == ("one", "second")
    assert version(daemon) == "2"
    until_one_spawner(daemon)
    assert code(daemon, "old") == "one"
    for name in ("old", "new"):
        daemon.client("lading", "pause", name)
        daemon.client("lading", "unpause", name)
        daemon.client("lading", "kill", name)
        assert daemon.client("lading", "wait", name).stdout == b"137\n"
        daemon.client("lading", "rm", name)


def test_a_broken_version_changes_nothing(daemon: Daemon, site: Path) -> None:
    start(daemon, "old")
    install(site, "odd", "raise RuntimeError('half baked')\n", role="isolation", version="2")
    done = daemon.client("lading", "plugin", "reload", "odd", check=False)
    assert done.returncode == 1
    assert b'isolation backend "odd": RuntimeError: half baked' in done.stderr
    assert version(daemon) == "1"
    start(daemon, "new")
    assert (code(daemon, "old"), code(daemon, "new")) == ("one", "one")
    daemon.client("lading", "rm", "-f", "old", "new")


def test_sighup_takes_over_what_was_upgraded(daemon: Daemon, site: Path) -> None:
    install(site, "odd", SOURCE.format(code="third"), role="isolation", version="3")
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGHUP)
    until(lambda: version(daemon) == "3", daemon.log)
    start(daemon, "new")
    assert code(daemon, "new") == "third"
    assert daemon.log().count("is now of") == 1
    daemon.client("lading", "rm", "-f", "new")


def test_a_plugin_that_was_just_installed_can_be_used(daemon: Daemon, site: Path) -> None:
    install(site, "late", SOURCE.format(code="late"), role="isolation")
    refused = daemon.client("lading", "run", "--runtime", "late", "busybox", "true", check=False)
    assert refused.returncode == 125
    daemon.client("lading", "plugin", "reload", "late")
    flags = ["--rm", "--runtime", "late"]
    assert daemon.client("lading", "run", *flags, "busybox", "echo", "hi").stdout == b"hi\n"


def test_what_cannot_be_changed_says_so(daemon: Daemon) -> None:
    done = daemon.client("lading", "plugin", "reload", "filesystem/copies", check=False)
    assert done.returncode == 1
    assert b'filesystem "copies" cannot be changed while the daemon runs (restart' in done.stderr
    done = daemon.client("lading", "plugin", "reload", "nosuch", check=False)
    assert b'no plugin "nosuch" is installed' in done.stderr


def test_work_under_way_is_finished_by_the_old_spawner(daemon: Daemon, site: Path) -> None:
    """An import whose archive comes slowly, across a reload."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 1 << 20
        tar.addfile(entry, io.BytesIO(bytes(1 << 20)))
    data = content.getvalue()
    command = [find_client("lading"), "-H", daemon.host, "import", "-", "slow"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.write(data[: 1 << 19])
        importing.stdin.flush()
        time.sleep(1)
        install(site, "odd", SOURCE.format(code="second"), role="isolation", version="2")
        daemon.client("lading", "plugin", "reload", "odd")
        importing.stdin.write(data[1 << 19 :])
        importing.stdin.close()
        assert importing.wait(60) == 0
    assert b"slow" in daemon.client("lading", "images").stdout
    until_one_spawner(daemon)
