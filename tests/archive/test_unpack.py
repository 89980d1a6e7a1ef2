"""Layers as image builders write them, and as nobody should."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import itertools
import lzma
import os
import resource
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from lading.archive import Archives, Root, headers
from lading.archive.headers import Entry
from lading.archive.reader import Reader
from lading.archive.unpack import Options, Unpacker
from lading.errors import Cancelled, Invalid
from lading.hooks.common import Mount
from lading.hooks.filesystem import LayerDirectory, Whiteouts

from .conftest import Tar, Target, bound, stream

pytestmark = pytest.mark.root


def test_every_kind_of_entry(target: Target) -> None:
    capability = "\x01\x00\x00\x02\x00\x04" + "\x00" * 14
    target.apply(
        Tar()
        .directory("d", 0o1777)
        .add("d/f", b"content", mode=0o4755, owner=(7, 8))
        .hard_link("d/g", "d/f")
        .symlink("l", "/anywhere")
        .add("null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
        .add("pipe", type=tarfile.FIFOTYPE, mode=0o600)
        .add("ping", b"x", pax={"SCHILY.xattr.security.capability": capability})
        .bytes()
    )
    top = target.path
    status = (top / "d/f").stat()
    assert stat.filemode(status.st_mode) == "-rwsr-xr-x"
    assert (status.st_uid, status.st_gid, status.st_nlink) == (7, 8, 2)
    assert (top / "d/g").read_bytes() == b"content"
    assert os.readlink(top / "l") == "/anywhere"
    assert (top / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((top / "pipe").stat().st_mode)
    assert os.getxattr(top / "ping", "security.capability") == capability.encode("latin-1")
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o1777


def test_times_of_directories_are_those_of_the_archive(target: Target) -> None:
    target.apply(Tar().directory("d").add("d/f").bytes())
    assert (target.path / "d").stat().st_mtime == 1_000_000_000


def test_fractions_of_a_second_are_exact(target: Target) -> None:
    target.apply(Tar().add("f", pax={"mtime": "1234567890.123456789"}).bytes())
    assert (target.path / "f").stat().st_mtime_ns == 1234567890123456789


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_dialects(target: Target, format: int) -> None:
    long = "d" * 90 + "/" + "f" * 90
    target.apply(Tar(format).add(long, b"x").symlink("l", long[:99]).bytes())
    assert (target.path / long).read_bytes() == b"x"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_beyond_the_header(target: Target, format: int) -> None:
    name = "/".join(["directory" * 3] * 120)
    tar = Tar(format).add(name, b"x").symlink("l", "t" * 300).hard_link("h", name)
    tar.add("big-owner", owner=(3_000_000, 4_000_000))
    target.apply(tar.bytes())
    assert (target.path / name).read_bytes() == b"x"
    assert os.readlink(target.path / "l") == "t" * 300
    assert (target.path / "h").stat().st_nlink == 2
    assert (target.path / "big-owner").stat().st_uid == 3_000_000


def test_names_are_bytes(target: Target) -> None:
    name = b"\xff\xfe\n \x80"
    target.apply(Tar(tarfile.GNU_FORMAT).add(os.fsdecode(name), b"x").bytes())
    assert os.listdir(os.fsencode(target.path)) == [name]


@pytest.mark.parametrize("form", ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1",
                                  "--sparse-version=1.0"])  # fmt: skip
def test_sparse_files_of_gnu_tar(target: Target, tmp_path: Path, form: str) -> None:
    import subprocess

    source = tmp_path / "holes"
    with open(source, "wb") as file:
        for at in (0, 1 << 20, 5 << 20, 77 << 16):
            file.seek(at)
            file.write(b"data at %d" % at)
        file.truncate(9 << 20)
    dialect = [form] if form == "--format=gnu" else ["--format=pax", form]
    data = subprocess.run(
        ["tar", "-C", tmp_path, *dialect, "-S", "-cf", "-", "holes"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert len(data) < 1 << 20
    target.apply(data)
    copy = target.path / "holes"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("pack", [
    bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress,
    lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
])  # fmt: skip
def test_compressions_are_told_by_content(archives: Archives, tmp_path: Path, pack: object) -> None:
    data = Tar().add("f", b"x" * 5000).bytes()
    packed = pack(data)  # type: ignore[operator]
    applied = archives.apply(bound(tmp_path), stream(packed))
    assert (tmp_path / "f").read_bytes() == b"x" * 5000
    assert applied.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (applied.length, applied.size, applied.entries) == (len(data), 5000, 1)


def test_the_digest_covers_what_follows_the_trailer(archives: Archives, tmp_path: Path) -> None:
    data = Tar().add("f").bytes() + b"\0" * 20480
    applied = archives.apply(bound(tmp_path), stream(data))
    assert applied.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_empty_stream_and_missing_trailer(target: Target) -> None:
    target.apply(b"")
    target.apply(Tar().add("f", b"x").bytes()[:1024])
    assert (target.path / "f").read_bytes() == b"x"


@pytest.mark.parametrize("damage", [
    lambda data: data[:700],                      # within a file
    lambda data: b"garbage" * 200,                # no tar
    lambda data: gzip.compress(data)[:-20],       # a gzip stream cut off
    lambda data: gzip.compress(data)[:40] + b"x" * 60,
    lambda data: zstandard.compress(data)[:-4],
    lambda data: data[:148] + b"7777777\0" + data[156:],
])  # fmt: skip
def test_damage_is_named(target: Target, damage: object) -> None:
    data = Tar().add("f", os.urandom(600)).bytes()
    with pytest.raises(Invalid):
        target.apply(damage(data))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["../neighbour/secret", "a/../../neighbour/secret"])
def test_names_that_lead_out_are_refused(target: Target, name: str) -> None:
    with pytest.raises(Invalid, match="out of the root"):
        target.apply(Tar().add(name, b"hacked").bytes())
    assert target.intact()


def test_absolute_names_count_from_the_target(target: Target) -> None:
    target.apply(Tar().add("/etc/lading-test", b"x").bytes())
    assert (target.path / "etc/lading-test").read_bytes() == b"x"
    assert not Path("/etc/lading-test").exists()


def test_links_lead_nowhere_outside(target: Target) -> None:
    outside = str(target.neighbour)
    tar = Tar().symlink("out", outside).symlink("up", "../neighbour").symlink("root", "/")
    tar.add("out/secret", b"hacked").add("up/secret", b"hacked").add("root/inside", b"x")
    target.apply(tar.bytes())
    assert target.intact()
    assert (target.path / "inside").read_bytes() == b"x"


def test_a_file_is_not_written_through_a_link(target: Target) -> None:
    target.apply(Tar().add("victim", b"safe").symlink("f", "victim").add("f", b"new").bytes())
    assert (target.path / "victim").read_bytes() == b"safe"
    assert not (target.path / "f").is_symlink()


def test_hard_links_outside_are_refused(target: Target) -> None:
    for link in ("../neighbour/secret", str(target.neighbour / "secret")):
        with pytest.raises(Invalid):
            target.apply(Tar().hard_link("h", link).bytes())
    assert target.intact()


def test_hard_links_to_links_do_not_follow_them(target: Target) -> None:
    secret = str(target.neighbour / "secret")
    target.apply(Tar().symlink("s", secret).hard_link("h", "s").bytes())
    assert os.readlink(target.path / "h") == secret


def test_metadata_do_not_follow_links(target: Target) -> None:
    outside = target.neighbour / "secret"
    before = outside.stat()
    target.apply(Tar().symlink("s", str(outside)).symlink("s", str(outside)).bytes())
    after = outside.stat()
    assert (before.st_mode, before.st_uid, before.st_mtime) == (
        after.st_mode, after.st_uid, after.st_mtime
    )  # fmt: skip


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh...", "d/.wh.."])
def test_whiteouts_of_no_name_are_refused(target: Target, name: str) -> None:
    target.apply(Tar().add("d/f").bytes())
    with pytest.raises(Invalid, match="whiteout"):
        target.apply(Tar().add(name).bytes())
    assert (target.path / "d/f").exists()
    assert target.intact()


def test_a_name_with_a_nul_is_refused(target: Target) -> None:
    block = Tar(tarfile.PAX_FORMAT).add("x", pax={"path": "a\0b"}).bytes()
    with pytest.raises(Invalid):
        target.apply(block)


@pytest.mark.parametrize("records", [{"uid": "99999999999999"}, {"size": "-5"}, {"mtime": "nan"},
                                     {"GNU.sparse.map": "1"}, {"size": "x"}])  # fmt: skip
def test_absurd_numbers_are_refused(target: Target, records: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        target.apply(Tar().add("f", pax=records).bytes())


@pytest.mark.usefixtures("user_attributes")
def test_marks_of_the_kernel_are_not_taken_from_archives(target: Target) -> None:
    names = ["trusted.overlay.redirect", "user.overlay.opaque", "trusted.anything"]
    for name in names:
        target.apply(Tar().directory("d").add("d/f", pax={f"SCHILY.xattr.{name}": "y"}).bytes())
    assert os.listxattr(target.path / "d/f") == []
    target.apply(Tar().add("g", pax={"SCHILY.xattr.user.mine": "y"}).bytes())
    assert os.listxattr(target.path / "g") == ["user.mine"]


def test_whiteouts_delete(target: Target) -> None:
    target.apply(Tar().add("f").add("d/g").add("kept").bytes())
    target.apply(Tar().add(".wh.f").add(".wh.d").add(".wh.never-was").bytes())
    assert os.listdir(target.path) == ["kept"]


@pytest.mark.parametrize("first", [True, False])
def test_opaque_hides_what_is_below_in_any_order(target: Target, first: bool) -> None:
    target.apply(Tar().add("d/old").add("d/sub/old").bytes())
    tar = Tar().directory("d")
    if first:
        tar.add("d/.wh..wh..opq")
    tar.add("d/new").directory("d/sub").add("d/sub/new")
    if not first:
        tar.add("d/.wh..wh..opq")
    target.apply(tar.bytes())
    assert sorted(os.listdir(target.path / "d")) == ["new", "sub"]
    assert os.listdir(target.path / "d/sub") == ["new"]


def test_opaque_with_directories_that_have_no_entry(target: Target) -> None:
    target.apply(Tar().add("d/old").bytes())
    target.apply(Tar().add("d/new/f").add("d/.wh..wh..opq").bytes())
    assert os.listdir(target.path / "d") == ["new"]


def test_links_of_aufs_find_their_source(target: Target) -> None:
    tar = Tar().directory(".wh..wh.plnk").add(".wh..wh.plnk/123.456", b"shared")
    tar.hard_link("a", ".wh..wh.plnk/123.456").hard_link("b", ".wh..wh.plnk/123.456")
    tar.add(".wh..wh.aufs").directory(".wh..wh.orph")
    target.apply(tar.bytes())
    assert sorted(os.listdir(target.path)) == ["a", "b"]
    assert os.path.samefile(target.path / "a", target.path / "b")
    assert (target.path / "a").read_bytes() == b"shared"


class Overlay:
    """Unpacking into a layer directory."""

    def __init__(self, archives: Archives, path: Path) -> None:
        self._archives = archives
        self.path = path

    def apply(self, tar: Tar, *, parent: bool = True) -> object:
        layer = LayerDirectory(self.path, Whiteouts.OVERLAY)
        return self._archives.apply_directory(layer, stream(tar.bytes()), parent=parent)

    def is_whiteout(self, name: str) -> bool:
        status = os.lstat(self.path / name)
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def is_opaque(self, name: str) -> bool:
        return "trusted.overlay.opaque" in os.listxattr(self.path / name)


@pytest.fixture
def overlay(archives: Archives, tmp_path: Path) -> Overlay:
    return Overlay(archives, tmp_path)


def test_deletions_become_overlays_marks(overlay: Overlay) -> None:
    assert overlay.apply(Tar().add(".wh.f").directory("d").add("d/.wh..wh..opq").add("d/n"))
    assert overlay.is_whiteout("f")
    assert overlay.is_opaque("d")
    assert os.listdir(overlay.path / "d") == ["n"]


@pytest.mark.parametrize("first", [True, False])
def test_deleted_and_made_again_is_opaque(overlay: Overlay, first: bool) -> None:
    tar = Tar()
    if first:
        tar.add(".wh.d")
    tar.directory("d").add("d/new")
    if not first:
        tar.add(".wh.d")
    assert overlay.apply(tar)
    assert overlay.is_opaque("d")


def test_a_base_layer_has_no_marks(overlay: Overlay) -> None:
    assert overlay.apply(Tar().add(".wh.f").directory("d").add("d/.wh..wh..opq"), parent=False)
    assert os.listdir(overlay.path) == ["d"]
    assert not overlay.is_opaque("d")


def test_what_needs_the_parent_says_so(overlay: Overlay) -> None:
    assert overlay.apply(Tar().hard_link("h", "in-the-parent")) is None


def test_a_directory_hands_its_group_to_nobody(target: Target) -> None:
    """As the set-group-ID bit would have it: Debian's /usr/local has it."""
    tar = Tar().add("d", type=tarfile.DIRTYPE, mode=0o2775, owner=(0, 50))
    target.apply(tar.add("d/f").symlink("d/l", "f").add("d/implied/f").bytes())
    target.apply(Tar().add("d/later/f").directory("d/own").bytes())
    assert (target.path / "d").stat().st_gid == 50
    below = sorted((target.path / "d").rglob("*"))
    assert len(below) == 7
    assert {path.lstat().st_gid for path in below} == {0}
    assert not any(path.lstat().st_mode & stat.S_ISGID for path in below)


def test_a_bomb_stops_at_the_end_of_space_and_can_be_cancelled(
    archives: Archives, tmp_path: Path
) -> None:
    """40 MB of zeros from 40 kB, into 8 MB; and 64 GB of them, given up."""
    small = Root((Mount("tmpfs", "tmpfs", ("size=8m",)),))
    with pytest.raises(OSError, match="No space left"):
        archives.apply(small, stream(gzip.compress(Tar().add("f", bytes(40 << 20)).bytes())))
    header = tarfile.TarInfo("f")
    header.size = 64 << 30
    source, sink = os.pipe()
    task = archives.task("apply", {**small.to_wire(), "alone": True}, [source])
    os.close(source)
    os.write(sink, header.tobuf())
    task.cancel()
    with pytest.raises(Cancelled):
        task.wait(30)
    task.close()
    os.close(sink)


def test_paths_of_two_hundred_levels(target: Target) -> None:
    names = [f"level-{n}" for n in range(200)]
    tar, path = Tar(), "/".join(names)
    for depth in range(1, 201):
        tar.directory("/".join(names[:depth]), 0o711)
    target.apply(tar.add(f"{path}/f", b"deep").bytes())
    assert (target.path / path / "f").read_bytes() == b"deep"
    assert (target.path / path).stat().st_mode & 0o777 == 0o711
    target.apply(Tar().add(f"{path}/again/f", b"implied").add(f"{path}/.wh.f").bytes())
    assert os.listdir(target.path / path) == ["again"]


def growth_of_unpacking(place: Path, entries: Iterator[Entry]) -> int:
    """Unpack entries in a process of its own; how much its memory has grown, in kB."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with open(reading) as told:
            said = told.read()
        assert os.waitpid(child, 0)[1] == 0, said
        return int(said)
    try:
        os.chdir(place)
        os.chroot(".")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        Unpacker(Options()).run(Reader(Blocks(entries)))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writing, str(after - before).encode())
        os._exit(0)
    except BaseException as error:
        os.write(writing, repr(error).encode())
    finally:
        os._exit(1)


class Blocks:
    """Headers as a stream."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._blocks = map(headers.build, entries)

    def read(self, size: int) -> bytes:
        return b"".join(itertools.islice(self._blocks, 20))


def test_many_entries_with_long_names_need_little_memory(tmp_path: Path) -> None:
    """As two million do: what is kept of a file does not depend on its name's length."""
    folder = b"/".join([b"%d" % n * 200 for n in range(1, 10)] * 2)
    directories = [folder[: n * 201 - 1] for n in range(1, 19)]
    made = [Entry(path, headers.DIRECTORY, 0o755) for path in directories]
    files = (Entry(folder + b"/%06d" % n + b"n" * 200) for n in range(20_000))
    # 75 MB of names.
    assert growth_of_unpacking(tmp_path, itertools.chain(made, files)) < 20_000
    count = sum(1 for _ in os.scandir(os.fsencode(tmp_path) + b"/" + folder))
    assert count == 20_000


def test_more_directories_than_can_be_remembered(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading.archive.unpack.MOST_NAMES", 1000)
    made = (Entry(b"directory-%d" % n, headers.DIRECTORY, 0o755) for n in range(1000))
    with pytest.raises(AssertionError, match="more than 1000 bytes of names"):
        growth_of_unpacking(target.path, made)
    assert len(os.listdir(target.path)) < 100
