"""``run`` and its relatives, as each client shows them on a real daemon."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image
from lading.testing.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.root


def run(daemon: Daemon, client: str, *arguments: str, **options: object) -> str:
    return daemon.client(client, "run", "--rm", *arguments, **options).stdout.decode()  # type: ignore[arg-type]


@pytest.fixture
def box(daemon: Daemon, client: str) -> Iterator[str]:
    """The name of a container that sleeps, and handles SIGTERM by exiting with 7."""
    script = "trap 'exit 7' TERM; while :; do sleep 0.1; done"
    name = f"box{time.monotonic_ns()}"
    daemon.client(client, "run", "-d", "--name", name, "busybox", "sh", "-c", script)
    yield name
    daemon.client("lading", "rm", "-f", "-v", name, check=False)


def inspect(daemon: Daemon, name: str) -> dict[str, object]:
    answer = json.loads(daemon.client("lading", "inspect", name).stdout)
    assert isinstance(answer[0], dict)
    return answer[0]


def test_output_and_exit_code(daemon: Daemon, client: str) -> None:
    assert run(daemon, client, "busybox", "echo", "hi") == "hi\n"
    done = daemon.client(client, "run", "--rm", "busybox", "sh", "-c", "exit 42", check=False)
    assert done.returncode == 42


def test_stdout_and_stderr_stay_apart(daemon: Daemon, client: str) -> None:
    done = daemon.client(client, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_stdin_goes_in_and_its_end_too(daemon: Daemon, client: str) -> None:
    assert run(daemon, client, "-i", "busybox", "cat", input=b"data\n") == "data\n"
    assert (
        run(daemon, client, "-i", "busybox", "wc", "-c", input=b"x" * 100_000).strip() == "100000"
    )


def test_a_hundred_megabytes_through_cat(daemon: Daemon, client: str) -> None:
    data = bytes(range(256)) * 4096 * 100
    done = daemon.client(
        client, "run", "-i", "--rm", "--log-driver", "none", "busybox", "cat", input=data
    )
    assert done.stdout == data


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["/no/such"], 127, "no such file or directory"),
        (["nosuchprogram"], 127, "executable file not found in $PATH"),
        (["/etc/passwd"], 126, "permission denied"),
    ],
)
def test_a_program_that_cannot_start(
    daemon: Daemon, client: str, command: list[str], code: int, text: str
) -> None:
    done = daemon.client(client, "run", "--rm", "busybox", *command, check=False)
    assert done.returncode == code
    assert text in done.stderr.decode()


def test_environment_user_and_directory(daemon: Daemon, client: str) -> None:
    script = 'echo "$A $(id -u):$(id -g) $(pwd) $HOME $(hostname)"'
    flags = ["-e", "A=b", "-u", "nobody", "-w", "/var", "-h", "here"]
    assert (
        run(daemon, client, *flags, "busybox", "sh", "-c", script) == "b 65534:65534 /var / here\n"
    )


def test_unknown_user_is_refused(daemon: Daemon, client: str) -> None:
    done = daemon.client(client, "run", "--rm", "-u", "whoisthis", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "whoisthis" in done.stderr.decode()


def test_entrypoint_and_arguments(daemon: Daemon, client: str) -> None:
    assert run(daemon, client, "--entrypoint", "echo", "busybox", "a", "b") == "a b\n"


def test_mounts(daemon: Daemon, client: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "f").write_text("host")
    script = (
        "cat /a/f; echo; (echo x > /a/g) 2>/dev/null || echo ro; df /t | tail -1 | cut -d' ' -f1"
    )
    flags = ["-v", f"{tmp_path}:/a:ro", "--tmpfs", "/t:size=1m"]
    assert run(daemon, client, *flags, "busybox", "sh", "-c", script) == "host\nro\ntmpfs\n"
    mount = f"type=bind,source={tmp_path},target=/b"
    run(daemon, client, "--mount", mount, "busybox", "sh", "-c", "echo new > /b/made")
    assert (tmp_path / "made").read_text() == "new\n"


def test_named_volume_lives_on(daemon: Daemon, client: str) -> None:
    volume = f"v{time.monotonic_ns()}"
    run(daemon, client, "-v", f"{volume}:/data", "busybox", "sh", "-c", "echo kept > /data/x")
    assert run(daemon, client, "-v", f"{volume}:/data", "busybox", "cat", "/data/x") == "kept\n"
    daemon.client(client, "volume", "rm", volume)


def test_isolation_seen_from_inside(daemon: Daemon, client: str) -> None:
    script = "echo $$; ls /proc | grep -c '^[0-9]'; ls /sys/class/net | tr '\\n' ' '"
    pid, count, interfaces = run(daemon, client, "busybox", "sh", "-c", script).splitlines()
    assert (pid, interfaces.split()) == ("1", ["eth0", "lo"])
    assert int(count) < 6


def test_default_capabilities_and_seccomp(daemon: Daemon, client: str) -> None:
    status = run(daemon, client, "busybox", "cat", "/proc/self/status")
    assert re.search(r"CapBnd:\s*00000000a80425fb", status)
    assert re.search(r"Seccomp:\s*2", status)


def test_read_only_root(daemon: Daemon, client: str) -> None:
    done = daemon.client(
        client, "run", "--rm", "--read-only", "busybox", "touch", "/x", check=False
    )
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr.decode()


def test_terminal(daemon: Daemon, client: str) -> None:
    script = "sleep 0.5; tty; stty size"
    command = (
        f"{shlex.quote(client_path(client))} -H {daemon.host} run --rm -it busybox sh -c '{script}'"
    )
    done = subprocess.run(
        ["script", "-qec", f"stty rows 33 cols 99; {command}", "/dev/null"],
        capture_output=True,
        timeout=60,
    )
    shown = done.stdout.decode().replace("\0", "").replace("\r\r\n", "\r\n")
    assert "/dev/pts/0\r\n33 99" in shown.replace("^@", "")


def client_path(client: str) -> str:
    from lading.testing.daemon import find_client

    return find_client(client)


def test_ps_and_logs(daemon: Daemon, client: str, box: str) -> None:
    listed = daemon.client(
        client, "ps", "--filter", f"name={box}", "--format", "{{.Names}} {{.State}}"
    )
    assert listed.stdout.decode() == f"{box} running\n"
    name = f"{box}-echo"
    daemon.client(client, "run", "--name", name, "busybox", "sh", "-c", "echo one; echo two >&2")
    logs = daemon.client(client, "logs", "--tail", "all", name)
    assert (logs.stdout, logs.stderr) == (b"one\n", b"two\n")
    daemon.client(client, "rm", name)


def test_logs_follow_until_the_end(daemon: Daemon, client: str) -> None:
    name = f"follow{time.monotonic_ns()}"
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done"
    daemon.client(client, "run", "-d", "--name", name, "busybox", "sh", "-c", script)
    assert daemon.client(client, "logs", "-f", name).stdout == b"1\n2\n3\n4\n5\n"
    daemon.client(client, "rm", "-f", name)


def test_exec(daemon: Daemon, client: str, box: str) -> None:
    done = daemon.client(client, "exec", "-e", "X=y", "-w", "/tmp", box, "sh", "-c", "echo $X; pwd")
    assert done.stdout == b"y\n/tmp\n"
    assert daemon.client(client, "exec", box, "sh", "-c", "exit 9", check=False).returncode == 9
    assert daemon.client(client, "exec", box, "nosuch", check=False).returncode in (126, 127)
    assert daemon.client(client, "exec", "-i", box, "cat", input=b"in").stdout == b"in"


def test_stop_sends_term_and_wait_tells_the_code(daemon: Daemon, client: str, box: str) -> None:
    daemon.client(client, "stop", box)
    assert daemon.client(client, "wait", box).stdout == b"7\n"
    state = inspect(daemon, box)["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["ExitCode"]) == ("exited", 7)


def test_start_again_restart_and_kill(daemon: Daemon, client: str, box: str) -> None:
    daemon.client(client, "restart", "-t", "5", box)
    daemon.client(client, "kill", box)
    assert daemon.client(client, "wait", box).stdout == b"137\n"
    daemon.client(client, "start", box)
    state = inspect(daemon, box)["State"]
    assert isinstance(state, dict)
    assert state["Running"] is True


def test_pause_stops_and_unpause_goes_on(daemon: Daemon, client: str, box: str) -> None:
    daemon.client(client, "pause", box)
    state = inspect(daemon, box)["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["Paused"]) == ("paused", True)
    daemon.client(client, "unpause", box)
    assert daemon.client(client, "exec", box, "echo", "awake").stdout == b"awake\n"


def test_rename_and_update(daemon: Daemon, client: str, box: str) -> None:
    daemon.client(client, "rename", box, f"{box}x")
    daemon.client(client, "update", "--memory", "64m", "--memory-swap", "64m", f"{box}x")
    host = inspect(daemon, f"{box}x")["HostConfig"]
    assert isinstance(host, dict)
    assert host["Memory"] == 64 << 20
    daemon.client(client, "rename", f"{box}x", box)


def test_top_shows_its_processes(daemon: Daemon, client: str, box: str) -> None:
    assert b"sleep" in daemon.client(client, "top", box).stdout


def test_restart_policy_brings_it_back(daemon: Daemon, client: str) -> None:
    name = f"again{time.monotonic_ns()}"
    daemon.client(
        client, "run", "-d", "--restart", "on-failure:2", "--name", name, "busybox", "false"
    )
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        box = inspect(daemon, name)
        if box["RestartCount"] == 2 and box["State"]["Status"] == "exited":  # type: ignore[index]
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"no two restarts: {box}")
    daemon.client(client, "rm", name)


def test_health_check_turns_healthy(daemon: Daemon, client: str) -> None:
    name = f"health{time.monotonic_ns()}"
    flags = ["--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "2"]
    daemon.client(client, "run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    wait_for_health(daemon, name, "unhealthy")
    daemon.client(client, "exec", name, "touch", "/ok")
    wait_for_health(daemon, name, "healthy")
    daemon.client(client, "rm", "-f", name)


def wait_for_health(daemon: Daemon, name: str, wanted: str) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        state = inspect(daemon, name)["State"]
        assert isinstance(state, dict)
        if state["Health"]["Status"] == wanted:
            return
        time.sleep(0.1)
    pytest.fail(f"never {wanted}")


def test_cidfile_labels_and_filters(daemon: Daemon, client: str, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    flags = ["--cidfile", str(cidfile), "--label", "team=a", "--name", f"lab{time.monotonic_ns()}"]
    daemon.client(client, "create", *flags, "busybox", "true")
    listed = daemon.client(
        client, "ps", "-aq", "--no-trunc", "--filter", "label=team=a"
    ).stdout.decode()
    assert listed.strip() == cidfile.read_text()
    daemon.client(client, "rm", cidfile.read_text())


def test_init_reaps(daemon: Daemon, client: str) -> None:
    # An orphan that nobody reaps stays in the list for good.
    orphan = "ps -o comm | grep -q '^sleep'"
    script = f"(sleep 0.2 &); n=0; while {orphan} && [ $n -lt 600 ]; do n=$((n+1)); usleep 50000; "
    script += f"done; {orphan} || echo reaped"
    done = daemon.client(
        client, "run", "--rm", "--init", "busybox", "sh", "-c", script, check=False
    )
    assert done.stdout == b"reaped\n"


def test_shared_namespaces(daemon: Daemon, client: str, box: str) -> None:
    script = "ps | grep -c sleep"
    assert int(run(daemon, client, "--pid", f"container:{box}", "busybox", "sh", "-c", script)) >= 2
    own = daemon.client(client, "exec", box, "readlink", "/proc/self/ns/net").stdout.decode()
    assert (
        run(daemon, client, "--net", f"container:{box}", "busybox", "readlink", "/proc/self/ns/net")
        == own
    )


def test_rm_of_a_running_container_needs_force(daemon: Daemon, client: str, box: str) -> None:
    done = daemon.client(client, "rm", box, check=False)
    assert done.returncode == 1
    assert "running" in done.stderr.decode()


def test_the_daemons_umask_closes_no_root() -> None:
    before = os.umask(0o077)
    try:
        with Daemon() as daemon:
            daemon.client("lading", "import", "-", "busybox", input=busybox_image())
            volume = ("-v", "made:/made")
            seen = run(
                daemon, "lading", "-u", "nobody", *volume, "busybox", "sh", "-c",
                "umask; ls -d /made /etc/hosts; cat /etc/resolv.conf >/dev/null && echo read",
            )  # fmt: skip
    finally:
        os.umask(before)
    assert seen.split() == ["0022", "/etc/hosts", "/made", "read"]
