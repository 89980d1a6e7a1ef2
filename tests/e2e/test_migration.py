"""Moving images and containers between filesystem backends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left
from lading.testing.volumes import loop_volume

pytestmark = pytest.mark.root

#: Every way to change a root that the copy of one could get wrong.
CHANGES = """
[ -e /done ] && exec sleep 1000
set -e
echo changed > /etc/group
rm /bin/yes; rm -r /home; mkdir /home; echo opaque > /home/new
rm -r /usr; echo file > /usr
mkdir -p /var/d/e; echo one > /var/d/a; ln /var/d/a /var/d/b; chown 12:34 /var/d/a
echo setuid > /var/d/s; chown 5:6 /var/d/s; chmod 4751 /var/d/s
ln -s /nowhere /var/d/link; mkfifo -m 640 /var/d/fifo; mknod /var/d/null c 1 3
dd if=/dev/zero of=/var/sparse bs=1 count=1 seek=10000000 2>/dev/null
mv /root /moved; chmod 700 /moved; chmod 1711 /
echo > /done
exec sleep 1000
"""
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon on btrfs, on a loop device, where overlay and vfs work as well."""
    with nothing_left(), loop_volume("btrfs", tmp_path_factory.mktemp("loop")) as volume:
        (volume / "d").mkdir()
        with Daemon(root=volume / "d") as daemon:
            daemon.client("lading", "import", "-", "busybox", input=busybox_image())
            yield daemon


def lading(daemon: Daemon, *words: str) -> str:
    return daemon.client("lading", *words).stdout.decode().strip()


def inspect(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lading(daemon, "inspect", name))[0]
    return found


def entry(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    content: object = ""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    names = os.listxattr(path, follow_symlinks=False)
    return (
        stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns,
        status.st_rdev, status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0, content,
        {n: os.getxattr(path, n, follow_symlinks=False) for n in names if ".overlay." not in n},
    )  # fmt: skip


def tree(daemon: Daemon, name: str) -> dict[bytes, tuple[object, ...]]:
    """All that a stopped container shows."""
    top = os.fsencode(lading(daemon, "mount", name))
    found = {b"": entry(top)}
    for above, directories, files in os.walk(top):
        for inside in (*directories, *files):
            path = above + b"/" + inside
            found[path[len(top) :]] = entry(path)
    lading(daemon, "unmount", name)
    return found


def changed(daemon: Daemon, name: str, driver: str) -> None:
    """A stopped container that has changed its root."""
    words = ["--name", name, "--storage-opt", f"driver={driver}"]
    lading(daemon, "run", "-d", *words, "busybox", "sh", "-c", CHANGES)
    root = Path(f"/proc/{inspect(daemon, name)['State']['Pid']}/root")
    give_up = time.monotonic() + 30
    while not (root / "done").exists():
        assert time.monotonic() < give_up, lading(daemon, "logs", name)
        time.sleep(0.05)
    os.setxattr(root / "var/d/b", "user.note", b"kept")
    os.setxattr(root / "etc/group", "security.capability", CAPABILITY)
    os.utime(root / "etc/group", ns=(1, 981173106_789012345))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root / "var/d", os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    lading(daemon, "stop", "-t", "0", name)


def debris(daemon: Daemon, identity: str) -> list[str]:
    """The backends that have a snapshot of a container."""
    place = daemon.root / "data/filesystem"
    found = place.glob("*/snapshots/[0-9]*/meta.json")
    return [str(m.relative_to(place).parts[0]) for m in found if identity in m.read_text()]


@pytest.mark.parametrize(
    "route", ["overlay vfs btrfs overlay", "vfs overlay", "btrfs vfs", "overlay btrfs"]
)
def test_container_moves_with_all_it_is(storage: Daemon, route: str) -> None:
    first, *rest = route.split()
    changed(storage, "mover", first)
    before = tree(storage, "mover")
    identity = inspect(storage, "mover")["Id"]
    for driver in rest:
        said = lading(storage, "storage", "migrate", "--to", driver, "mover")
        assert f"mover: Moved to {driver}" in said
        assert inspect(storage, "mover")["Driver"] == driver
        assert debris(storage, identity) == [driver]
        after = tree(storage, "mover")
        assert {k: v for k, v in after.items() if before.get(k) != v} == {}
        assert before.keys() == after.keys()
    shown = lading(storage, "diff", "mover").splitlines()
    assert {"D /bin/yes", "C /etc/group", "C /usr", "A /var/d/a", "D /root"} <= set(shown)
    assert not [row for row in shown if "busybox" in row]
    storage.client("docker", "start", "mover")
    assert storage.client("docker", "exec", "mover", "cat", "/var/d/b").stdout == b"one\n"
    lading(storage, "rm", "-f", "mover")


def test_what_cannot_move_is_named_and_nothing_moves(storage: Daemon) -> None:
    for name in ("one", "two"):
        lading(storage, "run", "-d", "--name", name, "busybox", "sleep", "1000")
    lading(storage, "create", "--name", "rests", "busybox", "true")
    for what in (["rests", "one", "two"], ["--all"]):
        words = ["storage", "migrate", "--to", "vfs", *what]
        done = storage.client("lading", *words, check=False)
        assert done.returncode != 0
        assert b"cannot migrate running containers: one, two (stop them first)" in done.stderr
    assert inspect(storage, "rests")["Driver"] == "overlay"
    lading(storage, "mount", "rests")
    done = storage.client("lading", "storage", "migrate", "--to", "vfs", "rests", check=False)
    assert b"it is mounted on" in done.stderr
    for words, says in (
        (["--to", "nothing", "rests"], b"unknown storage driver: nothing"),
        (["--to", "vfs", "nobody"], b"No such container or image: nobody"),
        (["--to", "vfs"], b"name containers and images"),
    ):
        done = storage.client("lading", "storage", "migrate", *words, check=False)
        assert says in done.stderr
    lading(storage, "unmount", "rests")
    lading(storage, "rm", "-f", "one", "two", "rests")


def test_limit_that_the_backend_cannot_hold_keeps_a_container_where_it_is(
    storage: Daemon, tmp_path: Path
) -> None:
    words = ["--storage-opt", f"path={tmp_path}", "--name", "placed"]
    lading(storage, "create", *words, "busybox", "true")
    done = storage.client("lading", "storage", "migrate", "--to", "vfs", "placed", check=False)
    assert f"its layer was placed at {tmp_path}".encode() in done.stderr
    lading(storage, "rm", "placed")


def test_image_moves_without_a_registry(storage: Daemon) -> None:
    """The source has nothing of it afterwards, and its containers go on there."""
    lading(storage, "run", "--name", "maker", "busybox", "touch", "/own")
    lading(storage, "commit", "-c", "CMD echo moved", "maker", "own")
    lading(storage, "rm", "maker")
    assert storage.client("docker", "run", "--rm", "own").stdout == b"moved\n"
    snapshots = storage.root / "data/filesystem/overlay/snapshots"
    before = len(list(snapshots.glob("[0-9]*")))
    lading(storage, "storage", "migrate", "--to", "btrfs", "own")
    assert len(list(snapshots.glob("[0-9]*"))) < before
    run = ["run", "--rm", "--storage-opt", "driver=btrfs", "own"]
    assert storage.client("docker", *run).stdout == b"moved\n"
    # And back where new containers are made, by their first.
    assert storage.client("docker", "run", "--rm", "own").stdout == b"moved\n"
    lading(storage, "rmi", "own")


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3])
def test_kill_in_the_middle_leaves_it_whole(storage: Daemon, moment: float) -> None:
    """On one backend or the other, never both, and what is left moves when asked again."""
    for name in ("first", "second"):
        changed(storage, name, "overlay")
    before = {name: tree(storage, name) for name in ("first", "second")}
    command = [find_client("lading"), "-H", storage.host, "storage", "migrate", "--to", "vfs"]
    with subprocess.Popen(
        [*command, "first", "second"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as asked:
        assert asked.stdout is not None
        asked.stdout.readline()
        time.sleep(moment)
        assert storage.process is not None
        storage.process.send_signal(signal.SIGKILL)
        storage.process.wait()
        asked.wait(30)
    storage.start()
    for name in ("first", "second"):
        shown = inspect(storage, name)
        assert debris(storage, shown["Id"]) == [shown["Driver"]]
        assert tree(storage, name) == before[name]
    lading(storage, "storage", "migrate", "--to", "vfs", "first", "second")
    for name in ("first", "second"):
        assert inspect(storage, name)["Driver"] == "vfs"
        assert tree(storage, name) == before[name]
    lading(storage, "rm", "-f", "first", "second")


def test_everything_moves_to_the_default(storage: Daemon) -> None:
    for driver in ("vfs", "btrfs", "overlay"):
        words = ["--name", f"on-{driver}", "--storage-opt", f"driver={driver}"]
        lading(storage, "create", *words, "busybox", "echo", driver)
    lading(storage, "storage", "migrate", "--all")
    for driver in ("vfs", "btrfs", "overlay"):
        name = f"on-{driver}"
        assert inspect(storage, name)["Driver"] == "overlay"
        assert storage.client("docker", "start", "-a", name).stdout.decode() == f"{driver}\n"
        lading(storage, "rm", name)
    for other in ("vfs", "btrfs"):
        place = storage.root / "data/filesystem" / other / "snapshots"
        assert list(place.glob("[0-9]*")) == []


def test_images_are_there_on_every_backend_without_a_pull(storage: Daemon, client: str) -> None:
    """First use of a backend unpacks from the content store: no registry is configured at all."""
    for driver in ("vfs", "btrfs", "overlay"):
        words = ["run", "--rm", "--pull", "never", "--storage-opt", f"driver={driver}"]
        if client == "/usr/bin/docker":
            words = ["run", "--rm", "--storage-opt", f"driver={driver}"]
        script = "test -x /bin/busybox && echo $0"
        done = storage.client(client, *words, "busybox", "sh", "-c", script, driver)
        assert done.stdout.decode() == f"{driver}\n"
