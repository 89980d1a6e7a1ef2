"""``--userns-remap``: containers whose root is nobody on the host."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image, nothing_left

pytestmark = pytest.mark.root

FIRST = 200_000


class Remapped(Daemon):
    """A daemon that sees subordinate ids for ``nobody``, in a mount namespace of its own."""

    def command(self) -> list[str]:
        ids = self.root / "ids"
        ids.write_text(f"nobody:{FIRST}:65536\nnogroup:{FIRST}:65536\n")
        script = (
            f"mount --bind {ids} /etc/subuid && mount --bind {ids} /etc/subgid && "
            'exec "$@" --userns-remap nobody:nogroup'
        )
        return ["unshare", "--mount", "sh", "-c", script, "sh", *super().command()]


@pytest.fixture(scope="module")
def remapped() -> Iterator[Daemon]:
    if not os.path.exists("/etc/subuid"):
        pytest.skip("this host has no /etc/subuid to stand in for")
    with nothing_left(), Remapped(root=Path(tempfile.mkdtemp(prefix="lading-"))) as daemon:
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        yield daemon


def run(daemon: Daemon, *arguments: str) -> str:
    return daemon.client("lading", "run", "--rm", *arguments).stdout.decode()


def test_root_inside_is_another_user_outside(remapped: Daemon) -> None:
    mapping = run(remapped, "busybox", "cat", "/proc/self/uid_map").split()
    assert mapping == ["0", str(FIRST), "65536"]
    script = "touch /new; mkdir /d; chown 5:6 /d; rm /bin/yes; stat -c '%u %g' / /bin /new /d"
    shown = run(remapped, "busybox", "sh", "-c", script)
    assert shown.splitlines() == ["0 0", "0 0", "0 0", "5 6"]


@pytest.mark.parametrize("backend", ["lxc", "runc"])
def test_other_backends_map_as_well(remapped: Daemon, backend: str) -> None:
    usable = remapped.client("lading", "plugin", "inspect", f"isolation/{backend}").stdout
    if b'"usable"' not in usable:
        pytest.skip(f"{backend} is not usable here")
    which = ["--runtime", backend]
    script = "touch /new; stat -c '%u %g' / /new; cat /proc/self/uid_map"
    shown = run(remapped, *which, "busybox", "sh", "-c", script)
    assert shown.split() == ["0", "0", "0", "0", "0", str(FIRST), "65536"]
    remapped.client("lading", "run", "-d", *which, "--name", "box", "busybox", "sleep", "1000")
    told = remapped.client("lading", "exec", "box", "cat", "/proc/self/uid_map").stdout.decode()
    assert told.split() == ["0", str(FIRST), "65536"]
    remapped.client("lading", "rm", "-f", "box")


def test_a_container_may_keep_the_hosts_users(remapped: Daemon) -> None:
    shown = run(remapped, "--userns", "host", "busybox", "cat", "/proc/self/uid_map").split()
    assert shown == ["0", "0", str(0xFFFF_FFFF)]


def test_owners_in_volumes_are_the_same_with_and_without_a_mapping(remapped: Daemon) -> None:
    run(remapped, "-v", "vol:/v", "busybox", "sh", "-c", "echo x > /v/f; chown 7:8 /v/f")
    show = ["-v", "vol:/v", "busybox", "stat", "-c", "%u %g", "/v/f"]
    assert run(remapped, *show) == run(remapped, "--userns", "host", *show) == "7 8\n"
    remapped.client("lading", "volume", "rm", "vol")


def test_copies_and_commits_have_the_owners_of_the_inside(remapped: Daemon) -> None:
    script = "echo x > /made; chown 7:8 /made; exec sleep 1000"
    remapped.client("lading", "run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    remapped.client("lading", "exec", "box", "sh", "-c", "until [ -s /made ]; do usleep 1000; done")
    tar = remapped.client("lading", "cp", "box:/made", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        entry = archive.getmember("made")
        assert (entry.uid, entry.gid) == (7, 8)
    remapped.client("lading", "cp", "-", "box:/root", input=tar)
    shown = remapped.client("lading", "exec", "box", "stat", "-c", "%u %g", "/root/made").stdout
    assert shown == b"7 8\n"
    remapped.client("lading", "commit", "box", "made")
    assert run(remapped, "made", "stat", "-c", "%u %g", "/made") == "7 8\n"
    remapped.client("lading", "rm", "-f", "box")
    remapped.client("lading", "rmi", "made")


def test_a_mapped_container_is_not_mounted_on_the_host(remapped: Daemon) -> None:
    """Its files would be shown with owners that are not theirs."""
    remapped.client("lading", "create", "--name", "mapped", "busybox", "true")
    done = remapped.client("lading", "mount", "mapped", check=False)
    assert b"belong to the ids of its user namespace" in done.stderr
    remapped.client("lading", "rm", "mapped")
    assert remapped.client("lading", "image", "mount", "busybox").stdout
    remapped.client("lading", "image", "unmount", "busybox")


def test_builds_mount_with_their_own_owners(remapped: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("of the context\n")
    (tmp_path / "s").write_text("secret\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS a\nRUN echo of a stage > /x\nFROM busybox\n"
        "RUN --mount=type=secret,id=s --mount=target=/c --mount=target=/rw,rw "
        "--mount=from=a,target=/a --mount=type=cache,id=remap,target=/k,uid=5 "
        "touch /rw/new && cat /run/secrets/s /c/f /a/x && "
        "stat -c %u /run/secrets/s /c/f /rw/f /rw/new /k\nCOPY f /f\nRUN stat -c %u /f\n"
    )
    secret = f"id=s,src={tmp_path / 's'}"
    done = remapped.client("lading", "build", "--secret", secret, str(tmp_path), check=False)
    out = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, out
    assert "secret\nof the context\nof a stage\n0\n0\n0\n0\n5\n" in out


def test_mounts_of_builds_belong_to_those_inside(remapped: Daemon, tmp_path: Path) -> None:
    """Also what of an image is a cache's first content."""
    (tmp_path / "f").write_text("F\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS a\nRUN mkdir /d /d/e && touch /d/x && chown 5:6 /d/x && chmod 4755 /d/x\n"
        "FROM busybox\n"
        "RUN --mount=from=a,source=/d,target=/m echo bind $(stat -c '%u:%g:%a' /m /m/x)\n"
        "RUN --mount=type=cache,from=a,source=/d,target=/c,uid=7"
        " echo cache $(stat -c '%u:%g:%a' /c /c/e /c/x)\n"
        "RUN --mount=target=/m,source=f echo context $(stat -c '%u:%g' /m)\n"
    )
    out = remapped.client("lading", "build", "--network", "none", str(tmp_path)).stdout.decode()
    assert "bind 0:0:755 5:6:4755\n" in out
    assert "cache 7:0:755 0:0:755 5:6:4755\n" in out
    assert "context 0:0\n" in out
