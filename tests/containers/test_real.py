"""Mounts, namespaces, policies and limits of containers on a real daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import Daemon
from lading.testing.waiting import until

pytestmark = pytest.mark.root


def run(daemon: Daemon, *arguments: str) -> str:
    return daemon.client("lading", "run", "--rm", *arguments).stdout.decode()


def fails(daemon: Daemon, *arguments: str) -> str:
    done = daemon.client("lading", *arguments, check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr.decode()


def inspect(daemon: Daemon, name: str) -> dict[str, Any]:
    answer: list[dict[str, Any]] = json.loads(daemon.client("lading", "inspect", name).stdout)
    return answer[0]


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    """A name; containers and volumes that begin with it go afterwards."""
    name = f"real{time.monotonic_ns()}"
    yield name
    for command in (("ps", "-aq"), ("volume", "ls", "-q")):
        found = daemon.client("lading", *command, "--filter", f"name={name}").stdout.split()
        if found:
            remove = ("rm", "-f", "-v") if command[0] == "ps" else ("volume", "rm", "-f")
            daemon.client("lading", *remove, *(f.decode() for f in found))


def test_an_empty_volume_gets_what_the_image_has_there(daemon: Daemon, name: str) -> None:
    assert "busybox" in run(daemon, "-v", f"{name}:/bin", "busybox", "ls", "/bin")
    listed = run(daemon, "-v", f"{name}:/there", "busybox", "ls", "/there").split()
    assert "sh" in listed
    assert run(daemon, "-v", f"{name}2:/etc:nocopy", "busybox", "ls", "/etc").split() == [
        "hostname",
        "hosts",
        "resolv.conf",
    ]


def test_owner_mode_links_and_times_are_copied_too(daemon: Daemon, name: str) -> None:
    script = (
        "mkdir /d; echo x > /d/f; chown 12:34 /d/f; chmod 4751 /d/f; ln /d/f /d/g; ln -s f /d/s;"
        "touch -d '2001-02-03 04:05:06' /d/f; chown 5:6 /d; chmod 1730 /d"
    )
    daemon.client("lading", "run", "--name", name, "busybox", "sh", "-c", script)
    daemon.client("lading", "commit", name, f"{name}:image")
    show = "stat -c '%n %u %g %a %h %F' /d /d/f /d/s; stat -c %y /d/f | cut -c1-19; readlink /d/s"
    shown = run(daemon, "-v", f"{name}v:/d", f"{name}:image", "sh", "-c", show)
    assert shown.splitlines() == [
        "/d 5 6 1730 2 directory",
        "/d/f 12 34 4751 2 regular file",
        "/d/s 0 0 777 1 symbolic link",
        "2001-02-03 04:05:06",
        "f",
    ]
    daemon.client("lading", "rmi", "-f", f"{name}:image")


def test_part_of_a_volume(daemon: Daemon, name: str) -> None:
    run(daemon, "-v", f"{name}:/d", "busybox", "sh", "-c", "mkdir /d/sub; echo in > /d/sub/f")
    mount = f"type=volume,src={name},dst=/m,volume-subpath=sub"
    for _ in range(2):
        assert run(daemon, "--mount", mount, "busybox", "cat", "/m/f") == "in\n"
    missing = f"type=volume,src={name},dst=/m,volume-subpath=none"
    assert 'subpath "none"' in fails(daemon, "run", "--rm", "--mount", missing, "busybox", "true")


def test_an_image_as_a_read_only_mount(daemon: Daemon) -> None:
    mount = "type=image,src=busybox,dst=/img"
    shown = run(daemon, "--mount", mount, "busybox", "sh", "-c", "ls /img/bin/sh; touch /img/x; :")
    assert shown == "/img/bin/sh\n"
    part = f"{mount},image-subpath=etc"
    assert "passwd" in run(daemon, "--mount", part, "busybox", "ls", "/img").split()


def test_anonymous_volumes_go_with_rm_and_named_ones_stay(daemon: Daemon, name: str) -> None:
    before = daemon.client("lading", "volume", "ls", "-q").stdout
    run(daemon, "-v", "/anonymous", "-v", f"{name}:/named", "busybox", "touch", "/named/x")
    after = set(daemon.client("lading", "volume", "ls", "-q").stdout.split())
    assert after - set(before.split()) == {name.encode()}


def test_volumes_from(daemon: Daemon, name: str) -> None:
    daemon.client("lading", "run", "-d", "--name", name, "-v", "/data", "busybox", "sleep", "1000")
    run(daemon, "--volumes-from", name, "busybox", "sh", "-c", "echo theirs > /data/x")
    script = "cat /data/x; touch /data/y || echo ro"
    shown = run(daemon, "--volumes-from", f"{name}:ro", "busybox", "sh", "-c", script)
    assert shown == "theirs\nro\n"


def test_a_volume_with_mount_options(daemon: Daemon, name: str, tmp_path: Path) -> None:
    options = ["--opt", "type=none", "--opt", f"device={tmp_path}", "--opt", "o=bind"]
    daemon.client("lading", "volume", "create", *options, name)
    run(daemon, "-v", f"{name}:/d", "busybox", "sh", "-c", "echo bound > /d/f")
    assert (tmp_path / "f").read_text() == "bound\n"
    daemon.client("lading", "volume", "rm", name)
    assert (tmp_path / "f").exists(), "removing a volume leaves what was mounted on it"


def test_a_missing_bind_source_is_made_for_v_and_refused_for_mount(
    daemon: Daemon, tmp_path: Path
) -> None:
    run(daemon, "-v", f"{tmp_path}/made:/d", "busybox", "touch", "/d/x")
    assert (tmp_path / "made" / "x").exists()
    mount = f"type=bind,src={tmp_path}/none,dst=/d"
    text = fails(daemon, "run", "--rm", "--mount", mount, "busybox", "true")
    assert f"bind source path does not exist: {tmp_path}/none" in text


def test_namespaces_of_another_container(daemon: Daemon, name: str) -> None:
    script = "echo shared > /dev/shm/f; exec sleep 1000"
    flags = ["--name", name, "--ipc", "shareable"]
    daemon.client("lading", "run", "-d", *flags, "busybox", "sh", "-c", script)
    until(lambda: "sleep 1000" in run(daemon, "--pid", f"container:{name}", "busybox", "ps"))
    other = f"container:{name}"
    assert run(daemon, "--ipc", other, "busybox", "cat", "/dev/shm/f") == "shared\n"
    inside = daemon.client("lading", "exec", name, "hostname").stdout.decode()
    assert run(daemon, "--net", other, "busybox", "hostname") == inside
    private = f"{name}p"
    daemon.client("lading", "run", "-d", "--name", private, "busybox", "sleep", "1000")
    refused = fails(daemon, "run", "--rm", "--ipc", f"container:{private}", "busybox", "true")
    assert "non-shareable IPC" in refused
    daemon.client("lading", "stop", "-t", "0", name)
    assert "non running container" in fails(
        daemon, "run", "--rm", "--net", other, "busybox", "true"
    )


def test_namespaces_of_the_host(daemon: Daemon) -> None:
    flags = ["--pid", "host", "--net", "host", "--ipc", "host", "--uts", "host"]
    script = "cd /proc/self/ns; for n in pid net ipc uts; do readlink $n; done"
    inside = run(daemon, *flags, "busybox", "sh", "-c", script).split()
    assert daemon.process is not None
    theirs = Path(f"/proc/{daemon.process.pid}/ns")
    assert inside == [str((theirs / n).readlink()) for n in ("pid", "net", "ipc", "uts")]


def test_a_policy_restarts_and_gives_up(daemon: Daemon, name: str) -> None:
    flags = ["-d", "--name", name, "--restart", "on-failure:2"]
    daemon.client("lading", "run", *flags, "busybox", "sh", "-c", "echo run; exit 3")
    until(lambda: inspect(daemon, name)["State"]["Status"] == "exited")
    state = inspect(daemon, name)
    assert (state["RestartCount"], state["State"]["ExitCode"]) == (2, 3)
    assert daemon.client("lading", "logs", name).stdout == b"run\n" * 3


def test_update_changes_limits_of_a_running_container(daemon: Daemon, name: str) -> None:
    daemon.client("lading", "run", "-d", "--name", name, "busybox", "sleep", "1000")
    daemon.client("lading", "update", "-m", "64m", "--memory-swap", "64m", name)
    eat = "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done"
    assert daemon.client("lading", "exec", name, "sh", "-c", eat, check=False).returncode == 137


def test_env_file_labels_and_names_show_in_inspect(daemon: Daemon, name: str) -> None:
    daemon.client("lading", "create", "--name", name, "-l", "a=b", "-e", "X=1", "busybox", "true")
    found = inspect(daemon, name)
    assert found["Name"] == f"/{name}"
    assert found["Config"]["Labels"] == {"a": "b"}
    assert "X=1" in found["Config"]["Env"]
    assert found["HostConfig"]["ShmSize"] == 64 << 20
    assert "/proc/kcore" in found["HostConfig"]["MaskedPaths"]


def test_log_options_bound_the_log(daemon: Daemon, name: str) -> None:
    options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=2"]
    script = "for i in $(seq 2000); do echo line $i; done"
    daemon.client("lading", "run", "--name", name, *options, "busybox", "sh", "-c", script)
    lines = daemon.client("lading", "logs", name).stdout.decode().splitlines()
    assert lines[-1] == "line 2000"
    assert len(lines) < 1000
    none = ["--log-driver", "none"]
    daemon.client("lading", "run", "--name", f"{name}n", *none, "busybox", "echo", "hi")
    assert "does not support reading" in fails(daemon, "logs", f"{name}n")


@pytest.mark.parametrize("instant", ["create", "start", "remove"])
def test_a_daemon_killed_in_the_middle_leaves_nothing_half_done(
    scratch_daemon: Daemon, instant: str
) -> None:
    """Many containers at once, the daemon killed among them; afterwards every one is whole."""
    daemon = scratch_daemon
    names = [f"c{n}" for n in range(20)]
    if instant != "create":
        for name in names:
            daemon.client("lading", "create", "--name", name, "busybox", "sleep", "1000")
    from concurrent.futures import ThreadPoolExecutor

    words = {"create": ["create", "--name"], "start": ["start"], "remove": ["rm"]}[instant]
    tail = ["busybox", "sleep", "1000"] if instant == "create" else []
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(daemon.client, "lading", *words, name, *tail, check=False) for name in names
        ]
        until(lambda: sum(job.done() for job in jobs) > 5)
        daemon.kill()
        answers = {n: job.result().returncode for n, job in zip(names, jobs, strict=True)}
    daemon.start()
    listed = daemon.client("lading", "ps", "-a", "--format", "{{.Names}} {{.State}}").stdout
    found = dict(line.split() for line in listed.decode().splitlines())
    for name, code in answers.items():
        if code == 0 and instant == "create":
            assert found[name] == "created"
        elif code == 0 and instant == "start":
            assert found[name] == "running"
        elif code == 0:
            assert name not in found
    for name, state in found.items():
        if state != "running":
            daemon.client("lading", "start", name)
        assert daemon.client("lading", "exec", name, "echo", "ok").stdout == b"ok\n"
    daemon.client("lading", "rm", "-f", *found)
    snapshots = list((daemon.root / "data" / "containers").iterdir())
    assert snapshots == []
