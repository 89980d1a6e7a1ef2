"""Containers on containerd's snapshots, through the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.containerd import Containerd
from lading.testing.daemon import Daemon, busybox_image, nothing_left
from lading.testing.waiting import until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def before(containerd: Containerd) -> set[Path]:
    """What other tests have on containerd's disk."""
    return on_disk(containerd)


def on_disk(containerd: Containerd) -> set[Path]:
    place = containerd.root / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
    return set(place.iterdir()) if place.exists() else set()


@pytest.fixture(scope="module")
def engine(containerd: Containerd, before: set[Path]) -> Iterator[Daemon]:
    """Runs on ``vfs`` by default, has the snapshotters overlayfs and native beside it."""
    flags = ("--config-file={root}/lading.toml", "--storage-driver=vfs")
    with nothing_left():
        daemon = Daemon()
        daemon.flags = tuple(flag.format(root=daemon.root) for flag in flags)
        (daemon.root / "lading.toml").write_text(
            f"[filesystem.snapshotter]\naddress = '{containerd.address}'\n"
            f"[filesystem.stargz]\naddress = '{containerd.address}'\nsnapshotter = 'native'\n"
            f"[filesystem.nydus]\naddress = '{containerd.address}'\nsnapshotter = 'btrfs'\n"
        )
        with daemon:
            daemon.client("lading", "import", "-", "busybox", input=busybox_image())
            yield daemon


def text(engine: Daemon, *arguments: str) -> str:
    return engine.client("lading", *arguments).stdout.decode().strip()


@pytest.mark.parametrize(
    ("backend", "snapshotter"), [("snapshotter", "overlayfs"), ("stargz", "native")]
)
def test_a_container_is_run_changed_committed_and_removed(
    engine: Daemon, containerd: Containerd, backend: str, snapshotter: str
) -> None:
    script = "echo new > /etc/new; rm /bin/sh; echo done"
    storage = f"--storage={backend}"
    assert text(engine, "run", storage, "--name=c", "busybox", "sh", "-c", script) == "done"
    assert text(engine, "inspect", "-f", "{{.GraphDriver.Name}}", "c") == backend
    found = text(engine, "diff", "c").splitlines()
    wanted = {"A /etc/new", "C /bin", "C /etc", "D /bin/sh"}
    # containerd's native snapshotter does not keep the times of directories that it copies.
    assert wanted <= set(found) if snapshotter == "native" else wanted == set(found)
    text(engine, "commit", "c", "changed")
    assert text(engine, "run", "--rm", storage, "changed", "cat", "/etc/new") == "new"
    # An image that was committed on one backend runs on another.
    assert text(engine, "run", "--rm", "changed", "cat", "/etc/new") == "new"
    assert containerd.snapshots(snapshotter)
    text(engine, "rm", "c")
    text(engine, "rmi", "changed")
    assert [
        k for k in containerd.snapshots(snapshotter) if not k.startswith(("init:", "sha256:"))
    ] == []


@pytest.mark.parametrize("isolation", ["native", "lxc", "runc", "crun"])
def test_a_root_that_is_a_device_of_its_own(engine: Daemon, isolation: str) -> None:
    """As btrfs, devmapper and overlaybd have it; the container itself may not open that device."""
    words = ["run", "--rm", f"--isolation={isolation}", "--storage=nydus", "busybox"]
    done = engine.client("lading", *words, "sh", "-c", "echo new > /f && cat /f", check=False)
    if b"is not usable here" in done.stderr:
        pytest.skip(done.stderr.decode().strip())
    assert (done.stdout, done.stderr) == (b"new\n", b"")
    opened = "mknod /tmp-loop b 7 0; cat /tmp-loop > /dev/null"
    done = engine.client("lading", *words, "sh", "-c", opened, check=False)
    assert done.returncode != 0
    assert b"not permitted" in done.stderr


def test_containers_outlive_restarts_of_containerd_and_of_the_engine(
    engine: Daemon, containerd: Containerd
) -> None:
    text(engine, "run", "-d", "--storage=snapshotter", "--name=long", "busybox", "sleep", "1000")
    text(engine, "exec", "long", "sh", "-c", "echo kept > /f")
    containerd.restart()
    assert text(engine, "exec", "long", "cat", "/f") == "kept"
    engine.stop()
    containerd.restart()
    engine.start()
    assert text(engine, "exec", "long", "cat", "/f") == "kept"
    text(engine, "restart", "-t0", "long")
    assert text(engine, "exec", "long", "cat", "/f") == "kept"
    text(engine, "rm", "-f", "long")


def test_grpc_is_in_no_process_that_forks(engine: Daemon) -> None:
    text(engine, "run", "-d", "--storage=snapshotter", "--name=c", "busybox", "sleep", "1000")
    assert engine.process is not None
    daemon = engine.process.pid
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(above, []).append(int(entry.name))
    with_grpc, pending = [], [daemon]
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        if "cygrpc" in Path(f"/proc/{pid}/maps").read_text():
            with_grpc.append(pid)
    assert with_grpc == [daemon]
    text(engine, "rm", "-f", "c")


def test_without_containerd_the_rest_of_the_engine_works(
    engine: Daemon, containerd: Containerd
) -> None:
    engine.stop()
    containerd.stop()
    try:
        engine.start()
        assert text(engine, "run", "--rm", "busybox", "echo", "hi") == "hi"
        refused = engine.client(
            "lading", "run", "--storage=snapshotter", "busybox", "true", check=False
        )
        assert refused.returncode == 125
        assert b"nobody listens on" in refused.stderr
    finally:
        containerd.start()
    # It is there now, and nobody has to restart the engine for that.
    assert text(engine, "run", "--rm", "--storage=snapshotter", "busybox", "echo", "hi") == "hi"


def test_removing_the_images_leaves_nothing_in_containerd(
    engine: Daemon, containerd: Containerd, before: set[Path]
) -> None:
    backends = {"snapshotter": "overlayfs", "stargz": "native", "nydus": "btrfs"}
    for backend in backends:
        words = ["run", "--rm", f"--storage={backend}", "busybox", "true"]
        done = engine.client("lading", *words, check=False)
        # Not every host has btrfs.
        assert done.returncode == 0 or b"is not usable here" in done.stderr
    assert containerd.snapshots()
    assert containerd.snapshots("native")
    assert on_disk(containerd) - before
    text(engine, "rmi", "busybox")
    for snapshotter in backends.values():
        listed = containerd.ctr("snapshots", "--snapshotter", snapshotter, "ls", check=False)
        assert len(listed.stdout.splitlines()) <= 1
    until(lambda: not on_disk(containerd) - before, "it keeps what was removed")
