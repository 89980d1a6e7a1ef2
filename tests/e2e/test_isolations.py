"""The same commands of the same clients, on isolation backends other than the default one."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, docker_clients

pytestmark = pytest.mark.root


def lxc_here() -> bool:
    """Whether liblxc can be loaded."""
    try:
        ctypes.CDLL("liblxc.so.1")
    except OSError:
        return False
    return True


LXC = pytest.param("lxc", marks=pytest.mark.skipif(not lxc_here(), reason="LXC is not installed"))
RUNC = pytest.param(
    "runc", marks=pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
)


class Engine:
    """One daemon, one client, one isolation backend."""

    def __init__(self, daemon: Daemon, client: str, backend: str) -> None:
        self.daemon, self.client, self.backend = daemon, client, backend

    def run(self, *arguments: str, data: bytes | None = None) -> tuple[int, str]:
        """``run`` with the backend: exit code and output."""
        return self.tell("run", "--runtime", self.backend, *arguments, data=data)

    def tell(self, *arguments: str, data: bytes | None = None) -> tuple[int, str]:
        """Any command: exit code and output, what went wrong included."""
        done = self.daemon.client(self.client, *arguments, input=data, check=False)
        return done.returncode, (done.stdout + done.stderr).decode().strip()

    def shown(self, name: str, template: str) -> str:
        """``inspect`` by a template."""
        return self.tell("inspect", "-f", template, name)[1]


@pytest.fixture
def engine(daemon: Daemon, request: pytest.FixtureRequest) -> Engine:
    """With the newest docker client here; the clients' own differences are tested elsewhere."""
    return Engine(daemon, ["lading", *docker_clients()][-1], str(request.param))


on_lxc = pytest.mark.parametrize("engine", [LXC], indirect=True)
#: What differs by more than the view from inside, which the matrix compares.
on_each = pytest.mark.parametrize("engine", [LXC, RUNC], indirect=True)


@on_lxc
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["busybox", "echo", "hi"], 0, "hi"),
        (["busybox", "sh", "-c", "exit 7"], 7, ""),
        (["busybox", "no-such-program"], 127, "executable file not found"),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["busybox", "sh", "-c", "trap 'exit 143' TERM; kill -TERM $$; sleep 9"], 143, ""),
        (["--pid", "host", "busybox", "sh", "-c", "kill -HUP $$; sleep 9"], 129, ""),
        (["--pid", "host", "busybox", "sh", "-c", "kill -SEGV $$; sleep 9"], 139, ""),
        (["-t", "busybox", "tty"], 0, "/dev/pts/0"),
    ],
)  # fmt: skip
def test_run_ends_as_the_program_does(
    engine: Engine, arguments: Sequence[str], code: int, text: str
) -> None:
    found, out = engine.run("--rm", *arguments)
    assert (found, text in out) == (code, True), out


@on_each
def test_an_init_is_had_or_refused(engine: Engine) -> None:
    code, out = engine.run("--rm", "--init", "busybox", "ps", "-o", "pid,comm")
    if engine.backend == "lxc":
        assert (code, "1 lading-init" in out) == (0, True), out
    else:
        assert (code, 'cannot do "init"' in out) == (125, True), out


@on_lxc
def test_mounts_that_cannot_reach_the_host_are_refused(engine: Engine, tmp_path: Path) -> None:
    code, out = engine.run("--rm", "-v", f"{tmp_path}:/v:rshared", "busybox", "true")
    assert (code, 'cannot do "rshared"' in out) == (125, True), out
    assert engine.run("--rm", "-v", f"{tmp_path}:/v:rslave", "busybox", "ls", "/v") == (0, "")


@on_lxc
def test_input_goes_through(engine: Engine) -> None:
    assert engine.run("-i", "--rm", "busybox", "cat", data=b"through\n") == (0, "through")


@on_lxc
def test_a_life_with_everything_in_it(engine: Engine) -> None:
    name = f"life-{engine.backend}"
    try:
        assert engine.run("-d", "--name", name, "busybox", "sleep", "1000")[0] == 0
        pid = int(engine.shown(name, "{{.State.Pid}}"))
        assert engine.tell("exec", name, "sh", "-c", "hostname; exit 4")[0] == 4
        assert engine.tell("exec", "-t", name, "tty") == (0, "/dev/pts/0")
        assert engine.tell("exec", name, "no-such-program")[0] == 127
        who = ["-u", "5:6", "-w", "/tmp", "-e", "A=b"]
        out = engine.tell("exec", *who, name, "sh", "-c", "id -u; id -g; pwd; echo $A")
        assert out == (0, "5\n6\n/tmp\nb")
        assert engine.tell("pause", name)[0] == 0
        assert engine.shown(name, "{{.State.Status}}") == "paused"
        assert engine.tell("exec", name, "true")[0] != 0
        assert engine.tell("unpause", name)[0] == 0
        assert "sleep 1000" in engine.tell("top", name)[1]
        assert "%" in engine.tell("stats", "--no-stream", "--format", "{{.CPUPerc}}", name)[1]
        assert engine.tell("update", "--memory", "64m", "--memory-swap", "64m", name)[0] == 0
        assert engine.shown(name, "{{.HostConfig.Memory}}") == str(64 << 20)
        assert engine.tell("restart", "-t", "0", name)[0] == 0
        assert int(engine.shown(name, "{{.State.Pid}}")) != pid
        assert engine.tell("stop", "-t", "0", name)[0] == 0
        assert engine.shown(name, "{{.State.ExitCode}}") == "137"
        assert engine.tell("start", name)[0] == 0
        assert engine.tell("kill", name)[0] == 0
        assert engine.tell("wait", name) == (0, "137")
    finally:
        engine.tell("rm", "-f", name)


@on_each
def test_want_of_memory_is_told(engine: Engine) -> None:
    name = f"hungry-{engine.backend}"
    try:
        limits = ["-m", "16m", "--memory-swap", "16m"]
        assert engine.run("--name", name, *limits, "busybox", "tail", "/dev/zero")[0] == 137
        assert engine.shown(name, "{{.State.OOMKilled}}") == "true"
    finally:
        engine.tell("rm", "-f", name)


@on_lxc
def test_containers_share_namespaces(engine: Engine) -> None:
    name = f"first-{engine.backend}"
    try:
        engine.run("-d", "--name", name, "busybox", "sleep", "1000")
        shared = [f"--network=container:{name}", f"--pid=container:{name}"]
        kinds = ("readlink", "/proc/self/ns/net", "/proc/self/ns/pid")
        assert engine.run("--rm", *shared, "busybox", *kinds) == engine.tell("exec", name, *kinds)
        assert "sleep 1000" in engine.run("--rm", *shared, "busybox", "ps")[1]
    finally:
        engine.tell("rm", "-f", name)


@on_each
def test_nothing_stays_after_it(engine: Engine) -> None:
    before = traces(engine.daemon)
    engine.run("--rm", "busybox", "true")
    engine.run("--rm", "busybox", "no-such-program")
    assert traces(engine.daemon) - before == set()


def traces(daemon: Daemon) -> set[str]:
    """Control groups in all hierarchies, mounts, and files of LXC."""
    found = {
        os.path.join(top, name)
        for place in ("/sys/fs/cgroup", "/run/lxc", "/var/lib/lxc")
        for top, folders, _ in os.walk(place)
        for name in folders
        if daemon.cgroup_parent in f"{top}/{name}/" or place != "/sys/fs/cgroup"
    }
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    # Ready network namespaces are the daemon's own.
    ours = (line.split()[4] for line in mounts if str(daemon.root) in line)
    return found | {place for place in ours if "/netns/" not in place}


@pytest.mark.parametrize("backend", [LXC])
def test_containers_outlive_a_killed_daemon(scratch_daemon: Daemon, backend: str) -> None:
    daemon = scratch_daemon
    engine = Engine(daemon, "lading", backend)
    engine.run("-d", "--name", "kept", "busybox", "sleep", "1000")
    engine.run("-d", "--name", "ending", "busybox", "sh", "-c", "sleep 0.5; exit 3")
    daemon.kill()
    daemon.start()
    assert engine.tell("wait", "ending") == (0, "3")
    assert engine.tell("exec", "kept", "echo", "works") == (0, "works")
    assert engine.tell("stop", "-t", "0", "kept")[0] == 0
    assert engine.shown("kept", "{{.State.ExitCode}}") == "137"
