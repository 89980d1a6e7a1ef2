"""What Lading adds to Docker's API: plain directories, namespaces made elsewhere, OCI hooks."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import BUSYBOX, Daemon, docker_clients

pytestmark = pytest.mark.root

ISOLATIONS = ("native", "runc", "lxc")
CLIENTS = ("lading", *docker_clients())

#: Every client on one backend, and every backend by one client or another.
TURNS = [
    *((ISOLATIONS[0], client) for client in CLIENTS),
    *((isolation, CLIENTS[n % len(CLIENTS)]) for n, isolation in enumerate(ISOLATIONS[1:], 1)),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A plain directory with busybox in it, as debootstrap or an unpacked tar would leave one."""
    top = tmp_path / "tree"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (top / name).mkdir(parents=True)
    (top / "bin/busybox").write_bytes(Path(BUSYBOX).read_bytes())
    (top / "bin/busybox").chmod(0o755)
    for name in ("sh", "cat", "echo", "sleep", "id", "touch", "ls"):
        (top / "bin" / name).symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:7:8::/:/bin/sh\n")
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    return top


def on_directory(client: str, where: str) -> list[str]:
    """The words that make a client run a directory: our flag, or the label that any has."""
    if client == "lading":
        return ["--rootfs", where]
    return ["--label", f"lading.rootfs={where}", "scratch"]


def inspect(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.client("lading", "inspect", name).stdout)[0]
    return found


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    made = f"o{secrets.token_hex(4)}"
    yield made
    daemon.client("lading", "rm", "-f", made, check=False)


@pytest.mark.parametrize(("isolation", "client"), TURNS)
def test_directory_is_written_in_place(
    daemon: Daemon, client: str, isolation: str, tree: Path, name: str
) -> None:
    words = ["--runtime", isolation, "-u", "ann", *on_directory(client, str(tree))]
    (tree / "tmp").chmod(0o1777)
    done = daemon.client(
        client, "run", "--name", name, *words, "sh", "-c", "echo hi > /tmp/made; id -un"
    )
    assert done.stdout == b"ann\n"
    assert (tree / "tmp/made").read_text() == "hi\n"
    shown = inspect(daemon, name)
    assert shown["GraphDriver"]["Data"] == {"RootDir": str(tree)}
    assert shown["Image"] == ""
    copied = daemon.client(client, "cp", f"{name}:/tmp/made", "-").stdout
    assert b"hi\n" in copied
    assert b"tmp/made" in daemon.client(client, "export", name).stdout
    for command in (["diff", name], ["commit", name, "never"]):
        refused = daemon.client(client, *command, check=False)
        assert refused.returncode != 0
        assert str(tree).encode() in refused.stderr, refused.stderr
        assert len(refused.stderr.decode().strip().splitlines()) == 1
    listed = daemon.client(client, "ps", "-a", "--filter", f"name={name}", "--format", "{{.Image}}")
    assert listed.stdout == b"scratch\n"


def test_directory_stays_when_its_container_goes(daemon: Daemon, client: str, tree: Path) -> None:
    daemon.client(client, "run", "--rm", *on_directory(client, str(tree)), "touch", "/kept")
    assert (tree / "kept").exists()
    assert (tree / "bin/busybox").exists()


@pytest.mark.parametrize(("isolation", "client"), TURNS)
def test_directory_read_only(daemon: Daemon, client: str, isolation: str, tree: Path) -> None:
    words = ["--runtime", isolation, *on_directory(client, f"{tree}:ro")]
    done = daemon.client(client, "run", "--rm", *words, "touch", "/never", check=False)
    assert done.returncode == 1
    assert b"Read-only file system" in done.stderr
    assert not (tree / "never").exists()


@pytest.mark.parametrize(("isolation", "client"), TURNS)
def test_layer_over_a_directory(
    daemon: Daemon, client: str, isolation: str, tree: Path, name: str
) -> None:
    before = sorted(p.relative_to(tree) for p in tree.rglob("*"))
    words = ["--runtime", isolation, *on_directory(client, f"{tree}:O")]
    daemon.client(client, "run", "--name", name, *words, "touch", "/etc/above")
    assert sorted(p.relative_to(tree) for p in tree.rglob("*")) == before
    changed = daemon.client(client, "diff", name).stdout.decode().splitlines()
    assert "A /etc/above" in changed
    assert not [line for line in changed if "busybox" in line]
    daemon.client(client, "start", "-a", name)
    assert b"etc/above" in daemon.client(client, "export", name).stdout
    refused = daemon.client(client, "commit", name, "never", check=False)
    assert b"lading export" in refused.stderr


def test_image_gives_defaults_to_a_directory(daemon: Daemon, tree: Path) -> None:
    """From docker with an image that is there: its environment and command count."""
    daemon.client(
        "lading", "import", "-c", "ENV KIND=image", "-c", 'CMD ["sh", "-c", "echo $KIND"]',
        "-", "defaults", input=b"\0" * 1024,
    )  # fmt: skip
    done = daemon.client("docker", "run", "--rm", "--label", f"lading.rootfs={tree}", "defaults")
    assert done.stdout == b"image\n"
    daemon.client("lading", "rmi", "defaults")


def test_image_cannot_choose_a_directory(daemon: Daemon, client: str, tree: Path) -> None:
    """Labels of an image are shown, and mean nothing: only the request counts."""
    (tree / "secret").touch()
    labels = {
        "lading.rootfs": str(tree),
        "lading.hooks.createRuntime": f"/bin/sh -c 'echo > {tree}/ran'",
        "lading.network": "ns:/proc/1/ns/net",
    }
    changes = [w for k, v in labels.items() for w in ("-c", f'LABEL {k}="{v}"')]
    name = daemon.client("lading", "create", "busybox", "true").stdout.decode().strip()
    daemon.client("lading", "commit", *changes, name, "sly")
    daemon.client("lading", "rm", name)
    done = daemon.client(client, "run", "--rm", "sly", "ls", "/secret", check=False)
    assert done.returncode == 1, done
    assert not (tree / "ran").exists()
    daemon.client("lading", "rmi", "sly")


def test_wrong_directories(daemon: Daemon, client: str, tree: Path) -> None:
    (tree / "file").touch()
    for where, says in (
        (str(tree / "gone"), "No such file or directory"),
        (str(tree / "file"), "not a directory"),
        ("/", "the engine's own"),
        (str(daemon.root), "the engine's own"),
        (str(daemon.root / "data"), "the engine's own"),
    ):
        done = daemon.client(client, "create", *on_directory(client, where), "true", check=False)
        assert done.returncode != 0
        assert says in done.stderr.decode()
    words = ["--storage-opt", "size=1g", *on_directory(client, str(tree)), "true"]
    done = daemon.client(client, "create", *words, check=False)
    assert b"storage options need a layer" in done.stderr
    words = ["--storage-opt", "driver=vfs", *on_directory(client, f"{tree}:O"), "true"]
    done = daemon.client(client, "create", *words, check=False)
    assert b'"vfs" cannot do "base-directory"' in done.stderr


def test_a_link_that_takes_the_directorys_place(daemon: Daemon, tree: Path, name: str) -> None:
    daemon.client("lading", "create", "--name", name, "--rootfs", str(tree), "sh", "-c", "true")
    tree.rename(tree.with_name("away"))
    tree.symlink_to("/")
    done = daemon.client("lading", "start", name, check=False)
    assert b"a link has taken its place" in done.stderr


def test_unknown_label_is_refused(daemon: Daemon, client: str) -> None:
    done = daemon.client(client, "create", "--label", "lading.rotfs=/x", "busybox", check=False)
    assert b"unknown label lading.rotfs" in done.stderr


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace of somebody else's, with an interface."""
    made = f"ldt{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", made], check=True)
    inside = ["ip", "-n", made]
    try:
        subprocess.run([*inside, "link", "add", "mark0", "type", "bridge"], check=True)
        subprocess.run([*inside, "addr", "add", "198.18.7.1/24", "dev", "mark0"], check=True)
        yield f"/run/netns/{made}"
    finally:
        subprocess.run(["ip", "netns", "del", made], check=True)


@pytest.mark.parametrize(("isolation", "client"), TURNS)
@pytest.mark.parametrize("by", ["option", "label"])
def test_network_namespace_by_path(
    daemon: Daemon, client: str, isolation: str, by: str, netns: str, name: str
) -> None:
    chosen = ["--network", f"ns:{netns}"]
    if by == "label":
        chosen = ["--label", f"lading.network=ns:{netns}"]
    daemon.client(
        client, "run", "-d", "--name", name, "--runtime", isolation, *chosen,
        "busybox", "sleep", "1000",
    )  # fmt: skip
    look = ["exec", name, "ip", "-o", "addr", "show", "mark0"]
    assert b"198.18.7.1" in daemon.client(client, *look).stdout
    shown = inspect(daemon, name)
    assert shown["HostConfig"]["NetworkMode"] == f"ns:{netns}"
    assert os.stat(f"/proc/{shown['State']['Pid']}/ns/net").st_ino == os.stat(netns).st_ino
    daemon.client(client, "restart", "-t", "0", name)
    assert b"198.18.7.1" in daemon.client(client, *look).stdout
    daemon.client(client, "rm", "-f", name)
    # It is not ours to take away, nor to change.
    left = subprocess.run(
        ["ip", "-n", os.path.basename(netns), "-o", "link"], capture_output=True, check=True
    )
    assert b"mark0" in left.stdout


def test_what_a_foreign_namespace_cannot_have(
    daemon: Daemon, client: str, netns: str, name: str
) -> None:
    words = ["--network", f"ns:{netns}", "-p", "8080:80", "busybox", "true"]
    done = daemon.client(client, "create", *words, check=False)
    assert b"port publishing and a network namespace made elsewhere" in done.stderr
    done = daemon.client(client, "create", "--network", "ns:relative", "busybox", check=False)
    assert b'it takes "ns:" and a path' in done.stderr
    daemon.client(client, "create", "--name", name, "--network", "ns:/etc", "busybox", "true")
    done = daemon.client(client, "start", name, check=False)
    assert b'"/etc" is not a network namespace' in done.stderr


POINTS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


def hook_words(client: str, stage: str, command: str) -> list[str]:
    if client == "lading":
        return ["--hook", f"{stage}={command}"]
    return ["--label", f"lading.hooks.{stage}={command}"]


@pytest.mark.parametrize(("isolation", "client"), TURNS)
def test_hooks_run_at_their_points(
    daemon: Daemon, client: str, isolation: str, tmp_path: Path
) -> None:
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\nread -r state\necho "$1 $state" >> {tmp_path}/log\n')
    script.chmod(0o755)
    words = [w for p in POINTS for w in hook_words(client, p, f"{script} {p}")]
    words += ["--runtime", isolation]
    identity = daemon.client(client, "create", *words, "busybox", "true").stdout.decode().strip()
    daemon.client(client, "start", identity)
    daemon.client(client, "wait", identity)
    daemon.client(client, "rm", "-f", identity)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[0] for line in lines] == list(POINTS)
    states = [json.loads(line.partition(" ")[2]) for line in lines]
    assert {state["id"] for state in states} == {identity}
    assert states[-1]["status"] == "stopped"


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize(
    "stage", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_failing_hook_fails_the_start(
    daemon: Daemon, isolation: str, stage: str, name: str
) -> None:
    hook = json.dumps({"path": "/bin/sh", "args": ["sh", "-c", "exit 9"]})
    words = ["--isolation", isolation, "--hook", f"{stage}={hook}", "--name", name]
    done = daemon.client("lading", "run", *words, "busybox", "sleep", "1000", check=False)
    assert done.returncode not in (0, 9)
    assert "hook" in done.stderr.decode(), done.stderr
    state = inspect(daemon, name)["State"]
    assert not state["Running"]
    daemon.client("lading", "rm", name)


@pytest.mark.parametrize(("isolation", "client"), TURNS)
def test_failing_poststop_hook_is_a_warning(daemon: Daemon, client: str, isolation: str) -> None:
    words = [*hook_words(client, "poststop", "/bin/false"), "--runtime", isolation]
    done = daemon.client(
        client, "run", "--rm", *words, "busybox", "sh", "-c", "exit 3", check=False
    )
    assert done.returncode == 3


def test_wrong_hooks(daemon: Daemon, client: str) -> None:
    for stage, command, says in (
        ("createRuntime", "relative", "an absolute path is needed"),
        ("createRuntime", "/no/such", "no such program"),
        ("createRuntime", '{"path": "/bin/true", "tiemout": 3}', "tiemout"),
        ("middle", "/bin/true", "unknown label lading.hooks.middle"),
    ):
        words = hook_words(client, stage, command)
        done = daemon.client(client, "create", *words, "busybox", "true", check=False)
        assert done.returncode != 0
        assert says in done.stderr.decode()
