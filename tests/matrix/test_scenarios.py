"""The same scenarios on every isolation × every filesystem of this host."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from .conftest import Engine, Pair, found, text

pytestmark = pytest.mark.root


@pytest.mark.parametrize("role", ["isolation", "filesystem"])
def test_what_this_host_lacks_is_told(role: str) -> None:
    usable, reasons = found(role)
    assert len(usable) >= 2, reasons
    if reasons:
        pytest.skip("; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items())))


def run(engine: Engine, pair: Pair, *words: str, input: bytes | None = None) -> str:
    """Run a container of this cell to its end."""
    return text(engine.client(pair.client, "run", "--rm", *pair.words, *words, input=input))


def test_it_is_the_cell_that_was_asked_for(engine: Engine, pair: Pair, box: str) -> None:
    shown = json.loads(text(engine.client(pair.client, "inspect", box)))[0]
    assert shown["HostConfig"]["Runtime"] == pair.isolation
    assert shown["Driver"] == pair.filesystem


@pytest.mark.parametrize(
    ("command", "code"),
    [(["sh", "-c", "exit 7"], 7), (["/no/such"], 127), (["/etc/passwd"], 126)],
)
def test_exit_code(engine: Engine, pair: Pair, command: list[str], code: int) -> None:
    done = engine.client(pair.client, "run", "--rm", *pair.words, "busybox", *command, check=False)
    assert done.returncode == code


def test_streams(engine: Engine, pair: Pair) -> None:
    data = b"0123456789abcdef" * (1 << 14)
    words = ["run", "-i", "--rm", *pair.words, "busybox", "sh", "-c", "cat; echo done >&2"]
    done = engine.client(pair.client, *words, input=data)
    assert done.stdout == data
    assert done.stderr == b"done\n"


def test_terminal(engine: Engine, pair: Pair) -> None:
    shown = run(engine, pair, "-t", "busybox", "sh", "-c", "test -t 0 && test -t 1 && echo yes")
    assert shown == "yes\r\n"


def test_environment_user_and_directory(engine: Engine, pair: Pair) -> None:
    words = ["-e", "A=b c", "-u", "5:6", "-w", "/made/here", "--group-add", "7", "-h", "host7"]
    script = 'echo "$A" $(id -u):$(id -g) $(id -G) $PWD $(hostname)'
    assert (
        run(engine, pair, *words, "busybox", "sh", "-c", script) == "b c 5:6 6 7 /made/here host7\n"
    )


def test_volumes(engine: Engine, pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("given\n")
    name = f"volume-{pair}"
    words = ["-v", f"{name}:/etc", "-v", f"{tmp_path}:/bind:ro", "--tmpfs", "/t", "busybox"]
    script = (
        "grep -c root /etc/passwd; echo kept > /etc/kept; cat /bind/given;"
        "touch /bind/x || touch /t/x"
    )
    assert run(engine, pair, *words, "sh", "-c", script) == "1\ngiven\n"
    assert run(engine, pair, *words, "cat", "/etc/kept") == "kept\n"
    engine.client(pair.client, "volume", "rm", name)


def test_limits(engine: Engine, pair: Pair) -> None:
    words = ["-m", "64m", "--pids-limit", "33", "--cpus", "0.5", "--ulimit", "nofile=77:88"]
    script = (
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null;"
        "cat pids/pids.max pids.max 2>/dev/null; ulimit -Sn; ulimit -Hn;"
        "cat cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 cpu.max"
    )
    shown = run(engine, pair, *words, "busybox", "sh", "-c", script).split()
    assert shown == [str(64 << 20), "33", "77", "88", "50000"]


def test_exec(engine: Engine, pair: Pair, box: str) -> None:
    words = ["exec", "-i", "-u", "5", "-w", "/tmp", "-e", "A=b", box, "sh", "-c"]
    done = engine.client(
        pair.client, *words, "cat; echo $A $(id -u) $PWD; exit 9", input=b"in\n", check=False
    )
    assert (done.returncode, done.stdout) == (9, b"in\nb 5 /tmp\n")
    done = engine.client(pair.client, "exec", box, "/no/such", check=False)
    assert done.returncode in (126, 127)


def test_copies_in_and_out(engine: Engine, pair: Pair, box: str, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/deep").write_text("deep")
    (tmp_path / "tree/link").symlink_to("sub/deep")
    engine.client(pair.client, "cp", str(tmp_path / "tree"), f"{box}:/tmp")
    shown = engine.client(pair.client, "exec", box, "cat", "/tmp/tree/link")
    assert shown.stdout == b"deep"
    out = engine.client(pair.client, "cp", f"{box}:/tmp/tree", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert {"tree", "tree/sub/deep", "tree/link"} <= {m.name.rstrip("/") for m in archive}


def test_differences_become_an_image(engine: Engine, pair: Pair) -> None:
    name, image = f"changes-{pair}", f"image-{pair}".lower()
    script = "echo new > /etc/new; rm /bin/yes; rm -r /home; echo file > /home; chmod 700 /root"
    words = ["run", "--name", name, *pair.words, "busybox", "sh", "-c", script]
    engine.client(pair.client, *words)
    shown = set(text(engine.client(pair.client, "diff", name)).splitlines())
    assert {"A /etc/new", "D /bin/yes", "C /home", "C /root"} <= shown
    assert not [row for row in shown if row.endswith(("/bin/sh", "/etc/passwd"))]
    engine.client(pair.client, "commit", name, image)
    look = "cat /etc/new /home; ls /bin/yes; stat -c %a /root"
    done = engine.client(pair.client, "run", "--rm", *pair.words, image, "sh", "-c", f"{look} 2>&1")
    assert done.stdout.startswith(b"new\nfile\n")
    assert done.stdout.endswith(b"700\n")
    engine.client(pair.client, "rm", name)
    engine.client(pair.client, "rmi", image)


def test_restart_keeps_what_was_written(engine: Engine, pair: Pair, box: str) -> None:
    engine.client(pair.client, "exec", box, "sh", "-c", "echo kept > /kept")
    engine.client(pair.client, "restart", "-t", "0", box)
    assert engine.client(pair.client, "exec", box, "cat", "/kept").stdout == b"kept\n"
    engine.client(pair.client, "pause", box)
    assert text(engine.client("lading", "inspect", "-f", "{{.State.Status}}", box)) == "paused\n"
    engine.client(pair.client, "unpause", box)
    assert engine.client(pair.client, "exec", box, "cat", "/kept").stdout == b"kept\n"


def test_signals_end_it(engine: Engine, pair: Pair, box: str) -> None:
    def code() -> str:
        return text(engine.client("lading", "inspect", "-f", "{{.State.ExitCode}}", box))

    engine.client(pair.client, "stop", "-t", "60", box)
    assert code() == "5\n"
    engine.client(pair.client, "start", box)
    engine.client(pair.client, "kill", box)
    engine.client("lading", "wait", box)
    assert code() == "137\n"
    engine.client(pair.client, "start", box)
