"""The command line against real daemons: Lading's, Docker's own, and ``LADING_TEST_HOST``."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_daemon import LADING

from lading.testing.daemon import Daemon, busybox_image, unmount_below

pytestmark = pytest.mark.root

DOCKERD = shutil.which("dockerd")
GIVEN = os.environ.get("LADING_TEST_HOST", "")
HOSTS = [
    "ladingd",
    pytest.param(
        "dockerd",
        marks=[
            pytest.mark.peer,
            pytest.mark.skipif(DOCKERD is None, reason="no dockerd on this host"),
        ],
    ),
    *(["given"] if GIVEN else []),
]
Run = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def scratch_dockerd() -> Iterator[str]:
    """Docker's daemon on directories of its own, without a bridge."""
    root = Path(tempfile.mkdtemp(prefix="lading-dockerd-"))
    socket = f"unix://{root}/s"
    flags = [f"--data-root={root}/d", f"--exec-root={root}/x", f"--pidfile={root}/p"]
    off = ["--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(DOCKERD), *flags, *off, "-H", socket], stdout=log, stderr=log
        )
    try:
        give_up = time.monotonic() + 60
        while subprocess.run([LADING, "-H", socket, "ps"], capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"dockerd did not start:\n{(root / 'log').read_text()}")
            time.sleep(0.1)
        yield socket
        subprocess.run([LADING, "-H", socket, "system", "prune", "-af"], capture_output=True)
    finally:
        process.terminate()
        process.wait(60)
        unmount_below(root)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a daemon that has the image ``busybox``."""
    if request.param == "given":
        yield GIVEN
    elif request.param == "ladingd":
        daemon: Daemon = request.getfixturevalue("daemon")
        yield daemon.host
    else:
        with scratch_dockerd() as socket:
            command = [LADING, "-H", socket, "import", "-", "busybox"]
            subprocess.run(command, input=busybox_image(), check=True, capture_output=True)
            yield socket


@pytest.fixture
def lading(host: str) -> Run:
    """Run the command line; standard output and error are text."""

    def run(*words: str, input: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [LADING, "-H", host, *words], input=input, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def box(lading: Run) -> Iterator[str]:
    """A running container without a network, as a scratch dockerd has none."""
    name = f"cli{time.monotonic_ns()}"
    lading("run", "-d", "--net", "none", "--name", name, "busybox", "sleep", "1000")
    yield name
    lading("rm", "-f", name, check=False)


def test_run_passes_streams_and_exit_code(lading: Run) -> None:
    base = ("run", "--rm", "--net", "none")
    done = lading(*base, "busybox", "sh", "-c", "echo out; echo err >&2; exit 5", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")
    data = "x" * 300_000
    assert lading(*base, "-i", "busybox", "cat", input=data).stdout == data
    assert lading(*base, "busybox", "nosuch", check=False).returncode == 127
    assert lading(*base, "busybox", "/etc", check=False).returncode == 126
    assert lading("run", "--net", "wrong", "busybox", check=False).returncode == 125


def test_terminal_has_the_size_of_this_one(host: str) -> None:
    command = f"{LADING} -H {host} run --rm --net none -it busybox sh -c 'sleep 0.5; stty size'"
    done = subprocess.run(
        ["script", "-qec", f"stty rows 33 cols 99; {command}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert b"33 99" in done.stdout


def test_detach_keys_leave_it_running(host: str, lading: Run) -> None:
    import pty

    name = f"keys{time.monotonic_ns()}"
    ours, theirs = pty.openpty()
    command = [LADING, "-H", host, "run", "--net", "none", "--name", name, "-it", "busybox", "sh"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        os.close(theirs)
        seen = b""
        while b"#" not in seen:
            seen += os.read(ours, 1024)
        os.write(ours, b"\x10\x11")
        assert process.wait(60) == 0
        assert lading("inspect", "-f", "{{.State.Running}}", name).stdout == "true\n"
    finally:
        process.kill()
        os.close(ours)
        lading("rm", "-f", name, check=False)


def test_signals_reach_the_process(host: str) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    command = [LADING, "-H", host, "run", "--rm", "--net", "none", "busybox", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert (rest, process.returncode) == (b"got\n", 9)


def test_exec_logs_top_stats(lading: Run, box: str) -> None:
    assert lading("exec", "-e", "A=b", box, "sh", "-c", "echo $A").stdout == "b\n"
    assert lading("exec", "-i", box, "cat", input="in").stdout == "in"
    assert lading("exec", box, "sh", "-c", "exit 7", check=False).returncode == 7
    assert "sleep" in lading("top", box).stdout
    assert lading("logs", box).stdout == ""
    shown = lading("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", box).stdout
    assert shown == f"{box} 1\n"


def test_life_of_a_container(lading: Run, box: str) -> None:
    assert lading("ps", "--filter", f"name={box}", "--format", "{{.State}}").stdout == "running\n"
    lading("pause", box)
    assert "(Paused)" in lading("ps", "--filter", f"name={box}", "--format", "{{.Status}}").stdout
    lading("unpause", box)
    lading("stop", "-t", "0", box)
    assert lading("wait", box).stdout == "137\n"
    lading("rename", box, f"{box}2")
    assert lading("start", f"{box}2").stdout == f"{box}2\n"
    lading("rename", f"{box}2", box)
    assert lading("rm", box, check=False).returncode == 1


def test_cp_in_all_directions(lading: Run, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_text("content")
    (tree / "link").symlink_to("deep/file")
    lading("cp", str(tree), f"{box}:/tmp")
    assert lading("exec", box, "cat", "/tmp/tree/link").stdout == "content"
    lading("cp", f"{tree}/.", f"{box}:/fresh")
    assert lading("exec", box, "ls", "/fresh").stdout == "deep\nlink\n"
    lading("cp", f"{box}:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/deep/file").read_text() == "content"
    lading("cp", "-L", f"{box}:/tmp/tree/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "content"
    assert not (tmp_path / "followed").is_symlink()
    missing = lading("cp", f"{box}:/none", str(tmp_path), check=False)
    assert (missing.returncode, "/none" in missing.stderr) == (1, True)
    assert lading("cp", str(tree), f"{box}:/fresh/link", check=False).returncode == 1


def test_images(lading: Run, box: str, tmp_path: Path) -> None:
    lading("exec", box, "touch", "/made")
    assert "A /made" in lading("diff", box).stdout
    tag = f"cli{time.monotonic_ns()}"
    identity = lading("commit", "-m", "note", box, tag).stdout.strip()
    assert lading("images", "-q", "--no-trunc", tag).stdout.strip() == identity
    assert "note" in lading("history", tag).stdout
    assert json.loads(lading("inspect", tag).stdout)[0]["Id"] == identity
    lading("save", "-o", str(tmp_path / "saved.tar"), tag)
    lading("rmi", tag)
    assert tag in lading("load", "-i", str(tmp_path / "saved.tar")).stdout
    lading("tag", tag, f"{tag}:other")
    lading("rmi", tag, f"{tag}:other")
    lading("export", "-o", str(tmp_path / "root.tar"), box)
    with tarfile.open(tmp_path / "root.tar") as tar:
        assert "made" in tar.getnames()


def test_build(lading: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM busybox\nCOPY . /x\nLABEL a=b\nCMD ["ls", "/x"]\n')
    (tmp_path / ".dockerignore").write_text("*\n!kept\n")
    (tmp_path / "kept").write_text("")
    (tmp_path / "left").write_text("")
    tag = f"cli{time.monotonic_ns()}"
    done = lading("build", "-t", tag, "--iidfile", str(tmp_path / "iid"), str(tmp_path))
    assert "COPY" in done.stdout
    assert lading("run", "--rm", "--net", "none", tag).stdout == "kept\n"
    quiet = lading("build", "-q", str(tmp_path)).stdout.strip()
    assert quiet.startswith("sha256:")
    lading("rmi", tag)


def test_networks_volumes_events(lading: Run) -> None:
    name = f"cli{time.monotonic_ns()}"
    lading("volume", "create", "--label", "a=b", name)
    assert lading("volume", "ls", "-q", "--filter", "label=a=b").stdout == f"{name}\n"
    assert lading("volume", "rm", name).stdout == f"{name}\n"
    assert (
        lading("network", "ls", "--format", "{{.Name}}", "--filter", "name=host").stdout == "host\n"
    )
    seen = lading("events", "--since", "1m", "--until", "0s", "--filter", f"volume={name}")
    assert "volume create" in seen.stdout
    assert "volume destroy" in seen.stdout


def test_version_info_df(lading: Run) -> None:
    assert lading("version", "-f", "{{.Server.Os}}").stdout == "linux\n"
    assert "Server Version:" in lading("info").stdout
    assert lading("info", "-f", "{{.OSType}}").stdout == "linux\n"
    assert lading("system", "df", "--format", "{{.Type}}").stdout.splitlines()[0] == "Images"


def test_tar_on_stdin_and_stdout(host: str, box: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    command = [LADING, "-H", host, "cp"]
    subprocess.run([*command, "-", f"{box}:/tmp"], input=out.getvalue(), check=True)
    done = subprocess.run([*command, f"{box}:/tmp/file", "-"], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["file"]
