"""Images and containers that are shown at a directory of the host."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import Daemon, mounts_below

pytestmark = pytest.mark.root

BACKENDS = ("overlay", "vfs")


def lading(daemon: Daemon, *words: str) -> str:
    return daemon.client("lading", *words).stdout.decode().strip()


def refused(daemon: Daemon, client: str, *words: str) -> str:
    done = daemon.client(client, *words, check=False)
    assert done.returncode != 0, done
    return done.stderr.decode()


def snapshots(daemon: Daemon) -> int:
    return len(list((daemon.root / "data/filesystem").glob("*/snapshots/*")))


def test_image_is_shown_until_unmounted(daemon: Daemon, client: str, tmp_path: Path) -> None:
    before = mounts_below(daemon.root), snapshots(daemon)
    place = Path(lading(daemon, "image", "mount", "busybox"))
    assert (place / "bin/busybox").stat().st_size > 0
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").touch()
    assert lading(daemon, "image", "mount", "busybox", str(tmp_path)) == str(tmp_path)
    assert os.listdir(tmp_path / "bin") == os.listdir(place / "bin")
    listed = lading(daemon, "image", "mount", "--format", "{{.Name}} {{.Target}}").splitlines()
    assert listed == [f"busybox {place}", f"busybox {tmp_path}"]
    said = refused(daemon, client, "rmi", "-f", "busybox")
    assert f"image is mounted on {place}" in said
    lading(daemon, "image", "unmount", "busybox")
    assert os.listdir(tmp_path) == []
    assert (mounts_below(daemon.root), snapshots(daemon)) == before
    assert "is not mounted" in refused(daemon, "lading", "image", "unmount", "busybox")


def test_whoever_is_in_there_is_not_cut_off(daemon: Daemon) -> None:
    place = lading(daemon, "image", "mount", "busybox")
    with subprocess.Popen(["sleep", "1000"], cwd=place) as inside:
        try:
            assert "is in use" in refused(daemon, "lading", "image", "unmount", "busybox")
            assert (Path(place) / "bin").is_dir()
            lading(daemon, "image", "unmount", "--force", "busybox")
            assert not Path(place).exists()
        finally:
            inside.kill()


def test_wrong_places(daemon: Daemon, tmp_path: Path) -> None:
    for where in (tmp_path / "gone", daemon.root / "data", daemon.root / "run/containers"):
        refused(daemon, "lading", "image", "mount", "busybox", str(where))
    assert lading(daemon, "image", "mount", "--format", "{{.Target}}") == ""
    lading(daemon, "image", "mount", "busybox", str(tmp_path))
    lading(daemon, "create", "--name", "second", "busybox", "true")
    said = refused(daemon, "lading", "mount", "second", str(tmp_path))
    assert f"image busybox is mounted on {tmp_path}" in said
    lading(daemon, "rm", "second")
    lading(daemon, "image", "unmount", "busybox")


@pytest.mark.parametrize("backend", BACKENDS)
def test_stopped_container_is_shown_and_started_below(
    daemon: Daemon, client: str, backend: str, tmp_path: Path
) -> None:
    """What it writes later is seen at once, and nothing is mounted twice."""
    words = ["--storage-opt", f"driver={backend}", "--name", "shown"]
    script = "echo $((`cat /count` + 1)) > /count; cat /count"
    daemon.client(client, "create", *words, "busybox", "sh", "-c", script)
    place = Path(lading(daemon, "mount", "shown"))
    assert place == Path(lading(daemon, "mount", "shown"))
    assert not (place / "count").exists()
    for number in (1, 2):
        assert daemon.client(client, "start", "-a", "shown").stdout == b"%d\n" % number
        assert (place / "count").read_text() == f"{number}\n"
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").touch()
    copied = daemon.client(client, "cp", "shown:/count", "-").stdout
    assert b"2\n" in copied
    assert "A /count" in daemon.client(client, "diff", "shown").stdout.decode()
    for force in ([], ["-f"]):
        assert f"it is mounted on {place}" in refused(daemon, client, "rm", *force, "shown")
    assert f"is mounted on {place} already" in refused(
        daemon, "lading", "mount", "shown", str(tmp_path)
    )
    lading(daemon, "unmount", "shown")
    assert daemon.client(client, "start", "-a", "shown").stdout == b"3\n"
    daemon.client(client, "rm", "shown")
    assert not [point for point in mounts_below(daemon.root) if "/mounts/" in point]


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_container_is_shown_as_it_changes(
    daemon: Daemon, client: str, backend: str
) -> None:
    words = ["--storage-opt", f"driver={backend}", "--name", "runs"]
    daemon.client(client, "run", "-d", *words, "-v", "/data", "busybox", "sleep", "1000")
    place = Path(lading(daemon, "mount", "runs"))
    daemon.client(client, "exec", "runs", "sh", "-c", "echo 1 > /first; echo > /data/volumes")
    assert (place / "first").read_text() == "1\n"
    # Volumes are no part of it, nor are /proc and its like.
    assert os.listdir(place / "data") == os.listdir(place / "proc") == []
    daemon.client(client, "restart", "-t", "0", "runs")
    daemon.client(client, "exec", "runs", "sh", "-c", "echo 2 > /second")
    assert (place / "second").read_text() == "2\n"
    lading(daemon, "unmount", "runs")
    daemon.client(client, "exec", "runs", "cat", "/first", "/second")
    daemon.client(client, "rm", "-fv", "runs")


def test_container_that_removes_itself_takes_its_mount_along(daemon: Daemon) -> None:
    lading(daemon, "run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1000")
    place = Path(lading(daemon, "mount", "brief"))
    waiting = lading(daemon, "kill", "brief")
    assert waiting == "brief"
    daemon.client("lading", "wait", "brief", check=False)
    subprocess.run(["timeout", "20", "sh", "-c", f"while [ -e {place} ]; do sleep 0.1; done"])
    assert not place.exists()
    assert lading(daemon, "mount", "--format", "{{.Name}}") == ""


def test_mounts_outlive_the_daemon(scratch_daemon: Daemon, client: str, tmp_path: Path) -> None:
    daemon = scratch_daemon
    daemon.client(client, "run", "-d", "--name", "web", "busybox", "sleep", "1000")
    image = lading(daemon, "image", "mount", "busybox", str(tmp_path))
    place = Path(lading(daemon, "mount", "web"))
    daemon.kill()
    assert (Path(image) / "bin/busybox").exists()
    daemon.start()
    daemon.client(client, "exec", "web", "touch", "/after")
    assert (place / "after").exists()
    assert "is mounted on" in refused(daemon, client, "rm", "-f", "web")
    # By hand, as after a boot: the row goes with the next start.
    subprocess.run(["umount", image], check=True)
    daemon.kill()
    daemon.start()
    assert lading(daemon, "image", "mount", "--format", "{{.Name}}") == ""
    lading(daemon, "unmount", "web")
    daemon.client(client, "rm", "-f", "web")
    daemon.client(client, "rmi", "busybox")
    assert not [point for point in mounts_below(daemon.root) if "/mounts/" in point]
    assert list((daemon.root / "run/mounts").iterdir()) == []


def test_api_names_one_object(daemon: Daemon) -> None:
    url = ["curl", "-s", "--unix-socket", str(daemon.socket), "http://d/lading/mounts"]
    made = subprocess.run([*url, "-d", "{}"], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(made.stdout)
    assert found["message"] == "mount: name an image or a container"
