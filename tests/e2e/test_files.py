"""Files in and out of containers: cp, diff, commit, export, import, save, load."""

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

from lading.testing.daemon import Daemon, find_client

pytestmark = pytest.mark.root


@pytest.fixture
def box(daemon: Daemon) -> Iterator[str]:
    name = f"files{time.monotonic_ns()}"
    daemon.client("lading", "run", "-d", "--name", name, "busybox", "sleep", "1000")
    yield name
    daemon.client("lading", "rm", "-f", name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a file, a sub-directory and a symbolic link."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_text("content")
    (top / "sub" / "deep").write_text("deep")
    (top / "link").symlink_to("file")
    return top


def in_box(daemon: Daemon, box: str, script: str) -> str:
    return daemon.client("lading", "exec", box, "sh", "-c", script).stdout.decode()


def test_directory_in_and_out(
    daemon: Daemon, client: str, box: str, tree: Path, tmp_path: Path
) -> None:
    daemon.client(client, "cp", str(tree), f"{box}:/tmp")
    assert in_box(daemon, box, "cat /tmp/tree/sub/deep; readlink /tmp/tree/link") == "deepfile\n"
    daemon.client(client, "cp", f"{box}:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "file").read_text() == "content"
    assert os.readlink(tmp_path / "back" / "link") == "file"


def test_link_is_followed_when_asked(daemon: Daemon, client: str, box: str, tree: Path) -> None:
    daemon.client(client, "cp", "-L", str(tree / "link"), f"{box}:/tmp/plain")
    assert in_box(daemon, box, "test -L /tmp/plain || cat /tmp/plain") == "content"


def test_tar_on_stdin_and_stdout(daemon: Daemon, client: str, box: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("from-tar")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    daemon.client(client, "cp", "-", f"{box}:/tmp", input=out.getvalue())
    assert in_box(daemon, box, "cat /tmp/from-tar") == "abc"
    answer = daemon.client(client, "cp", f"{box}:/tmp/from-tar", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(answer)) as tar:
        assert tar.getnames() == ["from-tar"]


def test_a_link_in_the_container_does_not_lead_out(
    daemon: Daemon, client: str, box: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    in_box(daemon, box, f"ln -s {outside} /escape")
    (tmp_path / "x").write_text("x")
    daemon.client(client, "cp", str(tmp_path / "x"), f"{box}:/escape/x", check=False)
    assert list(outside.iterdir()) == []


def test_missing_path_is_said(daemon: Daemon, client: str, box: str) -> None:
    done = daemon.client(client, "cp", f"{box}:/no/such", "-", check=False)
    assert done.returncode == 1
    assert "/no/such" in done.stderr.decode()


def test_diff_shows_what_changed_and_nothing_else(daemon: Daemon, client: str, box: str) -> None:
    in_box(daemon, box, "echo a > /etc/new; echo b >> /etc/passwd; rm /bin/yes")
    rows = set(daemon.client(client, "diff", box).stdout.decode().splitlines())
    assert rows == {"C /etc", "A /etc/new", "C /etc/passwd", "C /bin", "D /bin/yes"}


def test_commit_and_run_it(daemon: Daemon, client: str, box: str) -> None:
    in_box(daemon, box, "echo kept > /kept; rm /bin/yes")
    image = f"committed{time.monotonic_ns()}"
    daemon.client(
        client, "commit", "-m", "why", "-a", "me", "-c", 'CMD ["cat", "/kept"]', box, image
    )
    assert daemon.client(client, "run", "--rm", image).stdout == b"kept\n"
    gone = daemon.client(client, "run", "--rm", image, "ls", "/bin/yes", check=False)
    assert gone.returncode == 1
    history = daemon.client(client, "history", "--format", "{{.Comment}}", image).stdout.decode()
    assert history.splitlines()[0] == "why"
    daemon.client(client, "rmi", image)


def test_export_and_import(daemon: Daemon, client: str, box: str) -> None:
    in_box(daemon, box, "echo one > /one")
    flat = daemon.client(client, "export", box).stdout
    with tarfile.open(fileobj=io.BytesIO(flat)) as tar:
        assert "one" in {n.rstrip("/") for n in tar.getnames()}
    image = f"flat{time.monotonic_ns()}"
    daemon.client(client, "import", "-c", "ENV A=b", "-", image, input=flat)
    assert (
        daemon.client(client, "run", "--rm", image, "sh", "-c", "cat /one; echo $A").stdout
        == b"one\nb\n"
    )
    daemon.client(client, "rmi", image)


def test_save_and_load_keep_the_id(daemon: Daemon, client: str) -> None:
    image = f"saved{time.monotonic_ns()}"
    daemon.client(client, "tag", "busybox", f"{image}:1")
    was = json.loads(daemon.client(client, "inspect", f"{image}:1").stdout)[0]["Id"]
    archive = daemon.client(client, "save", f"{image}:1").stdout
    daemon.client(client, "rmi", f"{image}:1")
    loaded = daemon.client(client, "load", input=archive).stdout.decode()
    assert f"Loaded image: {image}:1" in loaded
    assert json.loads(daemon.client(client, "inspect", f"{image}:1").stdout)[0]["Id"] == was
    daemon.client(client, "rmi", f"{image}:1")


def test_image_in_use_is_not_removed(daemon: Daemon, client: str, box: str) -> None:
    done = daemon.client(client, "rmi", "busybox", check=False)
    assert done.returncode == 1
    assert "conflict" in done.stderr.decode().lower()
    assert daemon.client(client, "images", "-q", "busybox").stdout


def test_junk_is_not_an_image(daemon: Daemon, client: str) -> None:
    for command in (["import", "-", "junk"], ["load"]):
        done = daemon.client(client, *command, input=b"this is no archive" * 99, check=False)
        assert done.returncode == 1, command
    assert daemon.client(client, "images", "-q", "junk").stdout == b""


def test_reading_a_container_that_is_just_ending(daemon: Daemon, client: str) -> None:
    """Its process is gone, and the daemon does not know yet: the monitor is stopped meanwhile."""
    name = f"ending{time.monotonic_ns()}"
    script = "echo kept > /kept; sleep 1000"
    daemon.client(client, "run", "-d", "--name", name, "busybox", "sh", "-c", script)
    for command in (["export", name], ["cp", f"{name}:/kept", "-"]):
        form = "{{.State.Pid}}"
        pid = int(daemon.client("lading", "inspect", "-f", form, name).stdout)
        monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(monitor, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            reading = subprocess.Popen(
                [find_client(client), "-H", daemon.host, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            time.sleep(1)
            assert reading.poll() is None, reading.communicate()
        finally:
            os.kill(monitor, signal.SIGCONT)
        written, said = reading.communicate(timeout=60)
        assert reading.returncode == 0, said
        with tarfile.open(fileobj=io.BytesIO(written)) as archive:
            assert [m.name for m in archive if m.name.endswith("kept")] == ["kept"]
        daemon.client(client, "start", name)
    daemon.client(client, "rm", "-f", name)
