"""What comes out: exports, copies, differences, read by other people's tools."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lading.archive import Archives, Bind, Change, PathStat, Root, tasks
from lading.errors import Denied, Invalid, NotFound
from lading.hooks.common import Mount
from lading.hooks.filesystem import LayerDirectory, Whiteouts
from lading.linux import namespaces

from .conftest import Tar, bound, stream

pytestmark = pytest.mark.root


@contextmanager
def written(write: Callable[[int], object]) -> Iterator[bytes]:
    descriptor = os.memfd_create("out", os.MFD_CLOEXEC)
    try:
        write(descriptor)
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            yield file.read()
    finally:
        os.close(descriptor)


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def fill(top: Path) -> None:
    (top / "d").mkdir(parents=True)
    (top / "d/f").write_text("content")
    (top / "d/f").chmod(0o4755)
    os.chown(top / "d", 3_000_000, 5)
    os.link(top / "d/f", top / "linked")
    (top / "s").symlink_to("t" * 200)
    os.mkfifo(top / "pipe")
    os.mknod(top / "null", 0o20666, os.makedev(1, 3))
    (top / ("n" * 200)).write_text("long")
    (top / "empty").touch()
    os.setxattr(top / "empty", "user.note", b"\x00\xff=\n")
    path = top
    for _ in range(40):
        path = path / ("deep" * 5)
    path.mkdir(parents=True)
    (path / "f").write_text("x")
    os.close(os.open(os.fsencode(top) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))


@pytest.mark.usefixtures("user_attributes")
def test_gnu_tar_reads_an_export(archives: Archives, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    fill(source)
    copy.mkdir()
    with written(lambda out: archives.export(bound(source), out)) as data:
        subprocess.run(
            ["tar", "-C", copy, "--xattrs", "--numeric-owner", "-xpf", "-"], input=data, check=True
        )
    done = subprocess.run(["diff", "-r", "--no-dereference", source / "d", copy / "d"])
    assert done.returncode == 0
    assert os.path.samefile(copy / "linked", copy / "d/f")
    assert (copy / "d/f").stat().st_mode == (source / "d/f").stat().st_mode
    assert (copy / "d").stat().st_uid == 3_000_000
    assert os.getxattr(copy / "empty", "user.note") == b"\x00\xff=\n"
    assert sorted(os.listdir(os.fsencode(copy))) == sorted(os.listdir(os.fsencode(source)))


@pytest.mark.usefixtures("user_attributes")
def test_an_export_unpacks_to_the_same_tree(archives: Archives, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    fill(source)
    copy.mkdir()
    with written(lambda out: archives.export(bound(source), out)) as first:
        archives.apply(bound(copy), stream(first))
    with written(lambda out: archives.export(bound(copy), out)) as second:
        assert first == second


def test_the_order_is_that_of_names(archives: Archives, tmp_path: Path) -> None:
    for name in ("b/z", "b/a", "a", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with written(lambda out: archives.export(bound(tmp_path), out)) as data:
        assert names(data) == ["a", "b", "b/a", "b/z", "c"]


def test_sockets_are_left_out(archives: Archives, tmp_path: Path) -> None:
    os.mknod(tmp_path / "socket", 0o140666)
    with written(lambda out: archives.export(bound(tmp_path), out)) as data:
        assert names(data) == []


class Pair:
    """A lower and an upper tree."""

    def __init__(self, archives: Archives, root: Path) -> None:
        self._archives = archives
        self.lower, self.upper = root / "lower", root / "upper"
        self.lower.mkdir()

    def fork(self) -> None:
        subprocess.run(["cp", "-a", self.lower, self.upper], check=True)

    def changes(self, layer: LayerDirectory | None = None) -> list[Change]:
        return self._archives.changes(*self._recipes(), layer)

    def diff(self) -> list[str]:
        with written(lambda out: self._archives.diff(*self._recipes(), out)) as data:
            return names(data)

    def _recipes(self) -> tuple[list[Mount], list[Mount]]:
        first, second = (
            [Mount("bind", str(p), ("rbind",))] if p.exists() else []
            for p in (self.lower, self.upper)
        )
        return first, second


@pytest.fixture
def pair(archives: Archives, tmp_path: Path) -> Pair:
    return Pair(archives, tmp_path)


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_changes_are_dockers(pair: Pair) -> None:
    for name in ("etc/kept", "etc/deleted", "etc/changed", "usr/kept", "old/f"):
        put(pair.lower / name)
    pair.fork()
    put(pair.upper / "etc/changed", "now")
    (pair.upper / "etc/deleted").unlink()
    put(pair.upper / "etc/sub/new")
    shutil.rmtree(pair.upper / "old")
    assert pair.changes() == [
        Change("/etc", 0),
        Change("/etc/changed", 0),
        Change("/etc/deleted", 2),
        Change("/etc/sub", 1),
        Change("/etc/sub/new", 1),
        Change("/old", 2),
    ]


def test_no_change_is_an_empty_layer(pair: Pair) -> None:
    put(pair.lower / "d/f")
    pair.fork()
    assert pair.changes() == []
    assert pair.diff() == []


def test_parents_of_changes_are_in_the_layer(pair: Pair) -> None:
    put(pair.lower / "a/b/c/f", "old")
    put(pair.lower / "a/other")
    pair.fork()
    with open(pair.upper / "a/b/c/f", "r+") as file:
        file.write("new!")
    assert pair.diff() == ["a", "a/b", "a/b/c", "a/b/c/f"]


def test_deletions_are_whiteouts(pair: Pair) -> None:
    put(pair.lower / "d/f")
    put(pair.lower / "gone/f")
    pair.fork()
    (pair.upper / "d/f").unlink()
    shutil.rmtree(pair.upper / "gone")
    assert pair.diff() == ["d", "d/.wh.f", ".wh.gone"]


def test_a_change_of_kind_is_one_entry(pair: Pair) -> None:
    put(pair.lower / "x/inside")
    pair.fork()
    shutil.rmtree(pair.upper / "x")
    put(pair.upper / "x", "file")
    assert pair.diff() == ["x"]


def test_links_of_a_layer_lead_nowhere(pair: Pair, tmp_path: Path) -> None:
    """A container that exchanges directories for links gains no sight of the host."""
    put(tmp_path / "host/secret")
    layer = tmp_path / "layer"
    put(layer / "d/secret")
    (pair.lower / "d").symlink_to(tmp_path / "host")
    found = pair.changes(LayerDirectory(layer, Whiteouts.OVERLAY))
    assert [c.path for c in found] == ["/d", "/d/secret"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    put(top / "etc/conf", "content")
    (top / "absolute").symlink_to("/etc")
    (top / "relative").symlink_to("etc/conf")
    (top / "loop").symlink_to("loop")
    (top / "out").symlink_to("../../../../../../../etc/hostname")
    return top


def test_stat(archives: Archives, root: Path) -> None:
    os.utime(root / "etc/conf", ns=(0, 1234567890_500_000_000))
    (root / "etc/conf").chmod(0o4751)
    found = archives.stat(bound(root), "/etc/conf")
    wanted = PathStat("conf", 7, 0o751 | 1 << 23, "2009-02-13T23:31:30.5Z", "")
    assert found == wanted
    assert archives.stat(bound(root), "/").name == "/"
    assert archives.stat(bound(root), "/etc").mode & 1 << 31
    link = archives.stat(bound(root), "relative")
    assert (link.name, link.link_target, link.mode >> 27 & 1) == ("relative", "/etc/conf", 1)


def test_links_are_resolved_inside(archives: Archives, root: Path) -> None:
    assert archives.stat(bound(root), "/absolute/conf").size == 7
    with pytest.raises(NotFound):
        archives.stat(bound(root), "/out/")
    with pytest.raises(NotFound):
        archives.stat(bound(root), "/../../../../../../" + str(root / "etc/conf"))
    with pytest.raises(Invalid):
        archives.stat(bound(root), "/loop/x")


def test_copy_out_of_a_file_a_directory_and_the_root(archives: Archives, root: Path) -> None:
    with written(lambda out: archives.copy_out(bound(root), "/etc/conf", out)) as data:
        assert names(data) == ["conf"]
    with written(lambda out: archives.copy_out(bound(root), "/etc", out)) as data:
        assert names(data) == ["etc", "etc/conf"]
    with written(lambda out: archives.copy_out(bound(root), "/absolute/", out)) as data:
        assert [n for n in names(data) if n.endswith("conf")] == ["absolute/conf"]
    with pytest.raises(NotFound):
        archives.copy_out(bound(root), "/missing", 1)


def test_copy_in_goes_where_the_link_leads_inside(archives: Archives, root: Path) -> None:
    archives.copy_in(bound(root), "/absolute", stream(Tar().add("new", b"x").bytes()))
    assert (root / "etc/new").read_bytes() == b"x"


def test_copy_in_takes_names_as_they_are(archives: Archives, root: Path) -> None:
    archives.copy_in(bound(root), "/etc", stream(Tar().add(".wh.conf", b"x").bytes()))
    assert sorted(os.listdir(root / "etc")) == [".wh.conf", "conf"]


def test_copy_in_refusals(archives: Archives, root: Path) -> None:
    data = Tar().directory("conf").bytes()
    with pytest.raises(NotFound):
        archives.copy_in(bound(root), "/missing", stream(data))
    with pytest.raises(Invalid, match="not a directory"):
        archives.copy_in(bound(root), "/etc/conf", stream(data))
    with pytest.raises(Invalid, match="cannot overwrite"):
        archives.copy_in(bound(root), "/etc", stream(data), keep_kinds=True)
    with pytest.raises(Invalid, match="cannot overwrite"):
        archives.copy_in(bound(root), "/", stream(Tar().add("etc").bytes()), keep_kinds=True)
    assert (root / "etc/conf").read_text() == "content"
    read_only = Root((Mount("bind", str(root), ("rbind", "ro")),))
    with pytest.raises((Denied, OSError)):
        archives.copy_in(read_only, "/etc", stream(Tar().add("x").bytes()))


def test_owner_of_copies_can_be_given(archives: Archives, root: Path) -> None:
    data = Tar().add("f", owner=(5, 6)).bytes()
    archives.copy_in(bound(root), "/etc", stream(data), owner=(1000, 1001))
    assert ((root / "etc/f").stat().st_uid, (root / "etc/f").stat().st_gid) == (1000, 1001)


def test_volumes_are_seen_where_they_are_mounted(archives: Archives, root: Path) -> None:
    volume = root.parent / "volume"
    put(volume / "inside", "volume")
    shown = Root(bound(root).mounts, (Bind(str(volume), "/data"),))
    assert archives.stat(shown, "/data/inside").size == 6
    archives.copy_in(shown, "/data", stream(Tar().add("new").bytes()))
    assert (volume / "new").exists()
    guarded = Root(bound(root).mounts, (Bind(str(volume), "/data", read_only=True),))
    with pytest.raises((Denied, OSError)):
        archives.copy_in(guarded, "/data", stream(Tar().add("newer").bytes()))


def test_a_volume_on_a_link_stays_inside(archives: Archives, root: Path) -> None:
    """A link in the image at the place of a volume must not move the mount onto the host."""
    volume = root.parent / "volume"
    put(volume / "inside")
    (root / "data").symlink_to("/etc")
    shown = Root(bound(root).mounts, (Bind(str(volume), "/data"),))
    assert archives.stat(shown, "/etc/inside").name == "inside"


def test_the_root_of_a_process(archives: Archives, root: Path) -> None:
    shell = shutil.which("busybox")
    if shell is None:
        pytest.skip("no static busybox on this host")
    shutil.copy(shell, root / "busybox")
    with subprocess.Popen(
        [shell, "chroot", root, "/busybox", "sh", "-c", "echo; exec /busybox cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline()
        assert archives.stat(Root(pid=process.pid), "/absolute/conf").size == 7
        archives.copy_in(Root(pid=process.pid), "/etc", stream(Tar().add("new").bytes()))
        assert process.stdin
        process.stdin.close()
    assert (root / "etc/new").exists()


def test_mount_points_are_made_in_place_of_links(archives: Archives, root: Path) -> None:
    outside = root.parent / "outside"
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (root / "etc/hosts").write_text("of the image")
    (root / "dev").symlink_to(outside)
    for _ in range(2):
        archives.touch_init(bound(root))
    assert (root / "proc").is_dir()
    assert (root / "dev/shm").is_dir()
    assert not (root / "etc/resolv.conf").is_symlink()
    assert (root / "etc/hosts").read_text() == "of the image"
    assert os.readlink(root / "etc/mtab") == "/proc/mounts"
    assert not outside.exists()


def test_nothing_is_imported_from_a_root(root: Path) -> None:
    """CVE-2019-14271: what has changed its root must not load code that lies there."""
    for directory in filter(None, sys.path):
        put(root / directory.lstrip("/") / "colorsys.py", "raise SystemExit('loaded')")
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare_mounts()
            tasks.export(bound(root).to_wire(), [os.open(os.devnull, os.O_WRONLY)])
            import colorsys  # noqa: F401
        except ImportError:
            os._exit(0)
        except BaseException:
            os._exit(1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
