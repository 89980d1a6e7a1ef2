"""Instructions and flags as a user sees them: what the image says, what a step has."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import termios
from pathlib import Path
from typing import Any

import docker
import pytest

from lading.testing.daemon import Daemon, find_client
from lading.testing.waiting import until

pytestmark = pytest.mark.root


def built(
    daemon: Daemon, text: str, *flags: str, client: str = "lading", check: bool = True
) -> str:
    arguments = ("build", "--force-rm", *flags, "-")
    done = daemon.client(client, *arguments, input=text.encode(), check=False)
    out = (done.stdout + done.stderr).decode()
    assert (done.returncode == 0) == check, out
    return out


def config(daemon: Daemon, name: str) -> dict[str, Any]:
    shown = json.loads(daemon.client("lading", "inspect", name).stdout)[0]
    found: dict[str, Any] = shown["Config"]
    return found


SETTINGS = {
    'ENV a=1 b="2 3" c=$PATH': ("Env", ["a=1", "b=2 3"]),
    "LABEL k=v \"x y\"='$z'": ("Labels", {"k": "v", "x y": "$z"}),
    "EXPOSE 80 8000-8001/udp": ("ExposedPorts", {"80/tcp": {}, "8000/udp": {}, "8001/udp": {}}),
    'VOLUME ["/v", "/w x"]': ("Volumes", {"/v": {}, "/w x": {}}),
    "USER me:us": ("User", "me:us"),
    "WORKDIR /a/../b": ("WorkingDir", "/b"),
    "STOPSIGNAL SIGRTMIN+3": ("StopSignal", "SIGRTMIN+3"),
    "ENTRYPOINT echo $HOME": ("Entrypoint", ["/bin/sh", "-c", "echo $HOME"]),
    'CMD ["a", "$b"]': ("Cmd", ["a", "$b"]),
    "ONBUILD RUN true": ("OnBuild", ["RUN true"]),
    "HEALTHCHECK --interval=3s --timeout=1m30s --retries=2 CMD x y": (
        "Healthcheck",
        {"Test": ["CMD-SHELL", "x y"], "Interval": 3 * 10**9, "Timeout": 90 * 10**9, "Retries": 2},
    ),
    "HEALTHCHECK NONE": ("Healthcheck", {"Test": ["NONE"]}),
    'SHELL ["/bin/busybox", "sh", "-ec"]': ("Shell", ["/bin/busybox", "sh", "-ec"]),
}


@pytest.mark.parametrize("how", ["build", "commit", "import"])
def test_settings_are_the_same_everywhere(daemon: Daemon, how: str) -> None:
    """A Dockerfile, ``commit --change`` and ``import --change`` mean the same."""
    for line, (member, expected) in SETTINGS.items():
        if how == "build":
            built(daemon, f"FROM busybox\n{line}\n", "-q", "-t", "settings")
        elif how == "commit":
            made = daemon.client("lading", "create", "busybox", "sh").stdout.decode().strip()
            daemon.client("lading", "commit", "--change", line, made, "settings")
            daemon.client("lading", "rm", made)
        else:
            daemon.client("lading", "import", "--change", line, "-", "settings", input=b"\0" * 1024)
        found = config(daemon, "settings")[member]
        if member == "Env":
            found = [row for row in found if row[0] in "ab"]
        assert found == expected, line
        daemon.client("lading", "rmi", "settings")


def test_changes_are_read_as_a_dockerfile(daemon: Daemon) -> None:
    made = daemon.client("lading", "create", "busybox", "old").stdout.decode().strip()
    changes = ("ENV a=one", "ENV b=${a}-${none:-two}", "ENTRYPOINT new", "WORKDIR x$a")
    flags = [word for change in changes for word in ("--change", change)]
    daemon.client("lading", "commit", *flags, made, "changed")
    found = config(daemon, "changed")
    assert "b=one-two" in found["Env"]
    assert found["WorkingDir"] == "/xone"
    # The command was meant for another entry point.
    assert not found["Cmd"]
    for change, told in (
        ("RUN x", "RUN is not a valid change command"),
        ("STOPSIGNAL NOPE", "Invalid signal: NOPE"),
        ("CDM x", "did you mean CMD?"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK CMD", "Missing command"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("SHELL sh", "JSON form"),
        ("EXPOSE 99999", "99999"),
    ):
        done = daemon.client("lading", "commit", "--change", change, made, check=False)
        assert done.returncode != 0
        assert told in done.stderr.decode(), change
    daemon.client("lading", "rm", made)
    daemon.client("lading", "rmi", "changed")


def test_arguments_and_their_scopes(daemon: Daemon, client: str) -> None:
    text = (
        "ARG base=busybox above=top\nFROM ${base} AS a\n"
        "ARG above own=def empty=\nENV own=env\nRUN echo 1:$above:$own:$empty:$base\n"
        "FROM --platform=$TARGETPLATFORM busybox\n"
        "ARG TARGETARCH TARGETOS BUILDPLATFORM v=${TARGETARCH}x\n"
        "RUN echo 2:$above:$TARGETOS/$TARGETARCH:$BUILDPLATFORM:$v:$HTTP_PROXY\n"
        "COPY --from=a /bin/sh /sh\n"
    )
    flags = ("--no-cache", "--build-arg", "above=given", "--build-arg", "HTTP_PROXY=http://p")
    out = built(daemon, text, *flags, "--build-arg", "unused=1", client=client)
    assert "\n1:given:env::\n" in out
    match = re.search(r"\n2::linux/(\w+):linux/\1:\1x:http://p\n", out)
    assert match, out
    assert "build-args [unused] were not consumed" in out


def test_triggers(daemon: Daemon) -> None:
    text = (
        "FROM busybox\nENV who=base\nONBUILD ARG v=x\nONBUILD RUN <<E\necho $who $v in child\nE\n"
        "ONBUILD COPY --from=files /etc/passwd /copied\n"
    )
    built(daemon, text, "-t", "trigger")
    child = "FROM busybox AS files\nFROM trigger\nRUN test -f /copied && echo after\n"
    out = built(daemon, child, "--no-cache", "-t", "child")
    assert "# Executing 3 build triggers" in out
    assert "base x in child\n" in out
    assert "after\n" in out
    assert not config(daemon, "child").get("OnBuild")
    daemon.client("lading", "rmi", "child", "trigger")


def test_shell_and_escape(daemon: Daemon, client: str) -> None:
    text = (
        '# escape=`\nFROM busybox\nENV a=b`\n   c=d\nSHELL ["/bin/sh", "-xc"]\n'
        "RUN echo one `\n  # a comment\n\n  two C:\\`\n  three $a $c\n"
    )
    out = built(daemon, text, "--no-cache", client=client)
    assert "+ echo one two 'C:three' b d\n" in out or "one   two" in out, out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM busybox\nFORM x\n", "Dockerfile:2: unknown instruction: FORM (did you mean FROM?)"),
        ("FROM busybox\nENV a\n", "ENV must have two arguments"),
        ("FROM busybox\nONBUILD COPPY a b\n", "did you mean COPY?"),
        ("FROM busybox\nENV a=${b:?is needed}\n", "b: is needed"),
        ("FROM busybox\nRUN --netwrok=none x\n", "did you mean --network?"),
        ("FROM busybox\nRUN --network=lan x\n", "invalid network mode 'lan'"),
        ("FROM --platfrom=x busybox\n", "Dockerfile:1: unknown flag: --platfrom"),
        ("FROM busybox\nCOPY --from=9 a b\n", "9"),
        ("FROM busybox AS Bad!\n", 'invalid name for build stage: "Bad!"'),
        ("FROM scratch\nRUN x\n", "nothing to run"),
        ('FROM busybox\nRUN ["/none"]\n', "/none"),
        ("FROM 127.0.0.1:1/x\n", "Dockerfile:1: "),
        ("FROM busybox\nADD http://127.0.0.1:1/f /\n", "http://127.0.0.1:1/f"),
        ("FROM busybox\nCOPY --from=127.0.0.1:1/x a /\n", "127.0.0.1:1"),
        ("FROM busybox\nVOLUME []\n", "VOLUME requires at least one argument"),
        ("FROM busybox\nCMD --flag x\n", "unknown flag: --flag"),
        ("FROM busybox\nWORKDIR $none\n", "WORKDIR requires at least one argument"),
        ("ENV a=b\n", "no build stage in current context"),
    ],
)
def test_errors_show_where(daemon: Daemon, client: str, text: str, told: str) -> None:
    out = built(daemon, text, client=client, check=False)
    assert told in out
    if "9" not in told:
        assert "Dockerfile:" in out
        assert re.search(r"\n    \S.*\n    \s*\^", out), out


def test_limits_of_steps(daemon: Daemon, client: str) -> None:
    probe = (
        "m=$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes "
        "2>/dev/null); q=$(cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us "
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/cpuset/cpuset.cpus "
        "/sys/fs/cgroup/cpuset.cpus 2>/dev/null); "
        "echo memory $m; echo cpu $q; echo shm $(df -k /dev/shm | tail -1); "
        "echo files $(ulimit -n); grep there /etc/hosts; grep Seccomp: /proc/self/status; "
        "echo net $(ls /sys/class/net)"
    )
    flags = (
        "--memory", "64m", "--memory-swap", "64m", "--cpu-quota", "50000", "--cpu-period", "100000",
        "--cpuset-cpus", "0", "--shm-size", "3m", "--ulimit", "nofile=99:99",
        "--add-host", "there:1.2.3.4", "--security-opt", "seccomp=unconfined", "--network", "none",
        "--label", "made=here", "--no-cache", "-t", "limited", "-t", "limited:two",
    )  # fmt: skip
    out = built(daemon, f"FROM busybox\nRUN {probe}\n", *flags, client=client)
    assert "memory 67108864" in out
    assert re.search(r"\ncpu .*50000 .*100000.* 0\b", out), out
    assert re.search(r"\nshm \S+ +3072 ", out), out
    assert "\nfiles 99\n" in out
    assert "1.2.3.4\tthere\n" in out
    assert "Seccomp:\t0\n" in out
    assert "\nnet lo\n" in out
    assert config(daemon, "limited:two")["Labels"] == {"made": "here"}
    daemon.client("lading", "rmi", "limited", "limited:two")


def test_platforms(daemon: Daemon, client: str) -> None:
    """An image of another platform is not taken for the one that is wanted."""
    # Nobody listens there: what is not here cannot be had.
    name = "127.0.0.1:1/box"
    daemon.client("lading", "tag", "busybox", name)
    here = f"FROM {name}\n"
    built(daemon, here, client=client)
    for flag in ("--pull", "--platform=linux/s390x"):
        assert "Successfully" not in built(daemon, here, flag, client=client, check=False)
    daemon.client("lading", "rmi", name)
    text = "FROM scratch\nCOPY <<E /f\nE\n"
    flags = ("--platform", "linux/arm/v7", "-t", "foreign")
    built(daemon, text, *flags, client=client)
    shown = json.loads(daemon.client("lading", "inspect", "foreign").stdout)[0]
    assert (shown["Os"], shown["Architecture"], shown["Variant"]) == ("linux", "arm", "v7")
    built(daemon, text, "-t", "foreign", client=client)
    shown = json.loads(daemon.client("lading", "inspect", "foreign").stdout)[0]
    assert shown["Architecture"] != "arm"
    daemon.client("lading", "rmi", "foreign")


def test_network_of_a_step(daemon: Daemon) -> None:
    text = (
        "FROM busybox\nRUN --network=none echo none: $(ls /sys/class/net)\n"
        "RUN --network=default echo default: $(ls /sys/class/net)\n"
    )
    out = built(daemon, text, "--no-cache")
    assert "\nnone: lo\n" in out
    assert "\ndefault: eth0 lo\n" in out


def test_intermediate_containers(daemon: Daemon, client: str) -> None:
    def listed() -> set[str]:
        return set(daemon.client("lading", "ps", "-aq").stdout.decode().split())

    before = listed()
    built(daemon, "FROM busybox\nRUN true\n", "--no-cache", "--rm=false", "--force-rm=false",
          client=client)  # fmt: skip
    kept = listed() - before
    assert len(kept) == 1
    daemon.client("lading", "rm", *kept)
    done = daemon.client(client, "build", "-", input=b"FROM busybox\nRUN false\n", check=False)
    assert done.returncode != 0
    failed = listed() - before
    assert len(failed) == 1
    daemon.client("lading", "rm", *failed)
    built(daemon, "FROM busybox\nRUN false\n", client=client, check=False)
    assert listed() == before


def test_iidfile_and_quiet(daemon: Daemon, client: str, tmp_path: Path) -> None:
    file = tmp_path / "id"
    flags = ("build", "-q", "--iidfile", str(file), "--build-arg", "unused=1", "-")
    done = daemon.client(client, *flags, input=b"FROM busybox\nRUN echo noise\n")
    identity = done.stdout.decode().strip().splitlines()[-1]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", identity)
    assert "noise" not in done.stdout.decode()
    assert file.read_text().strip() == identity


def test_aux_tells_the_image(daemon: Daemon) -> None:
    client = docker.APIClient(f"unix://{daemon.socket}")
    rows = list(client.build(fileobj=io.BytesIO(b"FROM busybox\nENV x=y\n"), decode=True, rm=True))
    client.close()
    found = [row["aux"]["ID"] for row in rows if "aux" in row]
    assert len(found) == 1
    assert found[0].startswith("sha256:")


def test_interrupt_ends_the_build_and_its_container(daemon: Daemon, client: str) -> None:
    before = daemon.client("lading", "ps", "-aq").stdout
    process = subprocess.Popen(
        [find_client(client), "-H", daemon.host, "build", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    text = f"FROM busybox\nRUN echo done {client}\nRUN echo begun && sleep 1000\n"
    process.stdin.write(text.encode())
    process.stdin.close()
    seen = b""
    while b"\nbegun" not in seen:
        data = os.read(process.stdout.fileno(), 4096)
        assert data, seen
        seen += data
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(60) != 0
    until(lambda: daemon.client("lading", "ps", "-aq").stdout == before, "its container stays")
    # What was complete is in the cache.
    text = f"FROM busybox\nRUN echo done {client}\nRUN echo other {client}\n"
    assert built(daemon, text, client=client).count("Using cache") == 1


def on_terminal(daemon: Daemon, *arguments: str, input: bytes) -> tuple[int, str]:
    """What a client writes to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 90))
    process = subprocess.Popen(
        [find_client("lading"), "-H", daemon.host, "build", *arguments, "-"],
        stdin=subprocess.PIPE, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    assert process.stdin
    process.stdin.write(input)
    process.stdin.close()
    seen = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(ours)
    return process.wait(60), seen.decode()


STAGES = (
    b"FROM busybox AS left\nRUN echo noise-of-left; sleep 1\n"
    b"FROM busybox AS right\nRUN echo noise-of-right; sleep 1; echo > /r\n"
    b"FROM busybox\nCOPY --from=left /etc/passwd /l\nCOPY --from=right /r /r\n"
)


def test_a_terminal_shows_stages(daemon: Daemon) -> None:
    code, seen = on_terminal(daemon, "--no-cache", "-t", "shown", input=STAGES)
    assert code == 0, seen
    lines = [line for line in seen.replace("\x1b", "\n").splitlines() if line.startswith("[2K")]
    # While they ran, with what they wrote.
    assert any("noise-of-left" in line for line in lines)
    assert any("noise-of-right" in line for line in lines)
    # In the end, a line for each step, with its time.
    done = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", seen)
    assert re.search(r"=> \[left 2/7\] RUN echo noise-of-left; sleep 1 +[0-9.]+s", done), done
    assert "Successfully tagged shown:latest" in done
    code, seen = on_terminal(daemon, "-t", "shown", input=STAGES)
    assert re.search(r"RUN echo noise-of-left; sleep 1 +CACHED", seen), seen
    assert re.search(r"\[left 2/7\]", seen), seen
    daemon.client("lading", "rmi", "shown")


def test_a_terminal_shows_what_failed(daemon: Daemon) -> None:
    text = (
        b"FROM busybox\nRUN echo one; printf 'half\\rwhole\\n\\033[31mred\\n'; echo why; exit 3\n"
    )
    code, seen = on_terminal(daemon, "--force-rm", input=text)
    assert code == 3
    ended = seen.rpartition("\x1b[J")[2]
    assert "    one\r\n    whole\r\n    red\r\n    why\r\n" in ended
    assert "returned a non-zero code: 3" in ended


def test_ways_to_show(daemon: Daemon) -> None:
    built(daemon, "FROM busybox\n", "--progress", "fancy", check=False)
    out = built(daemon, STAGES.decode(), "--no-cache", "--progress", "plain")
    assert "[left] noise-of-left\n" in out
    out = built(daemon, STAGES.decode(), "--no-cache", "--progress", "quiet")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", out)
    assert "\nnoise-of-left\n" in built(daemon, STAGES.decode(), "--no-cache")
    code, seen = on_terminal(daemon, "--no-cache", "--progress", "plain", input=STAGES)
    assert code == 0
    assert "\x1b[2K" not in seen
