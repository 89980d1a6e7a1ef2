"""``--storage-opt size=`` means one thing everywhere: it holds, or nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image, nothing_left
from lading.testing.volumes import loop_volume

pytestmark = pytest.mark.root

#: Writes six, then eight times a MiB; the image has more than a MiB of its own.
SCRIPT = (
    "dd if=/dev/urandom of=/six bs=1M count=6 conv=fsync && echo fits;"
    "dd if=/dev/urandom of=/more bs=1M count=8 conv=fsync || echo held; sync"
)


def snapshots(daemon: Daemon, backend: str) -> set[str]:
    """Those there are, without what is on its way out."""
    directory = daemon.root / "data/filesystem" / backend / "snapshots"
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return {name for name in names if not name.startswith("gone-")}


def test_a_backend_that_cannot_limit_refuses_before_anything_is_made(
    daemon: Daemon, client: str
) -> None:
    # Other tests' images may be there already.
    before = snapshots(daemon, "vfs")
    for option, backend in (("size=10M", "vfs"), ("inodes=10", "vfs"), ("path=/x", "vfs")):
        words = ["run", "--rm", "--storage-opt", f"driver={backend}", "--storage-opt", option]
        done = daemon.client(client, *words, "busybox", "true", check=False)
        assert done.returncode == 125
        name = option.partition("=")[0]
        assert f'storage option {name}: filesystem backend "vfs" cannot'.encode() in done.stderr
        assert b"these can: " in done.stderr
    assert daemon.client("lading", "ps", "-aq").stdout == b""
    assert snapshots(daemon, "vfs") == before


@pytest.mark.parametrize(
    ("backend", "kind", "options"), [("btrfs", "btrfs", ""), ("overlay", "xfs", "prjquota")]
)
def test_a_size_limit_holds(backend: str, kind: str, options: str, tmp_path: Path) -> None:
    with loop_volume(kind, tmp_path, options=options) as volume, nothing_left():
        data = f"--data-root={volume}/data"
        with Daemon(data, f"--storage-driver={backend}") as daemon:
            daemon.client("lading", "import", "-", "busybox", input=busybox_image())
            words = ["run", "--storage-opt", "size=10M", "--name=c", "busybox", "sh", "-c", SCRIPT]
            assert daemon.client("lading", *words).stdout.split() == [b"fits", b"held"]
            assert b"A /six" in daemon.client("lading", "diff", "c").stdout.splitlines()
            daemon.client("lading", "commit", "c", "changed")
            words = ["run", "--rm", "changed", "stat", "-c", "%s", "/six"]
            assert daemon.client("lading", *words).stdout.strip() == str(6 << 20).encode()
            # A container without a limit is not held by that of another.
            words = ["run", "--rm", "busybox", "sh", "-c", SCRIPT]
            assert daemon.client("lading", *words).stdout.split() == [b"fits"]
            daemon.client("lading", "rm", "c")
