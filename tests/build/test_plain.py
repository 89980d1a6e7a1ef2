"""Contexts that are read in memory are to the cache what unpacked ones are."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from lading.archive import Archives
from lading.build import context
from lading.build.plain import Plain, PlainSources, Special
from lading.build.sources import Digests, Sources, content_of
from lading.errors import NotFound
from lading.linux import paths
from lading.testing.daemon import Daemon
from lading.testing.waiting import until


def packed(add: Callable[[tarfile.TarFile], None], mode: str = "w") -> bytes:
    """An archive."""
    out = io.BytesIO()
    # The mode is one of two literals, which the type of open() wants to see.
    with tarfile.open(fileobj=out, mode="w:gz" if mode == "w:gz" else "w") as tar:
        add(tar)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"") -> tarfile.TarInfo:
    """A header."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), "f"
    return info


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some files and directories, of several modes and in an order that matters."""
    for name in ("f", "a/g", "a/b/c/x", "a/b/x", "a.b/x", "a-b", "é/ü [x]"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "f").chmod(0o4755)
    (tmp_path / "a").chmod(0o750)
    return tmp_path


@pytest.mark.parametrize("exclude", [(), ("**/x",), ("b",)])
@pytest.mark.parametrize(
    "pattern", [".", "a", "a/", "a*", "*/x", "**/x", "f", "?", "é", "a/./b", "empty"]
)
@pytest.mark.parametrize("parents", [False, True])
def test_the_same_digest(
    tree: Path, pattern: str, exclude: tuple[str, ...], *, parents: bool
) -> None:
    plain = Plain(packed(lambda tar: tar.add(tree, ".")))
    inside = PlainSources(plain, exclude)
    with paths.opened_root(tree) as root:
        unpacked = Sources(os.fsencode(tree), root, exclude)
        try:
            wanted = content_of(unpacked, [pattern], (), Digests(), parents=parents)
        except NotFound:
            with pytest.raises(NotFound, match="file does not exist"):
                content_of(inside, [pattern], (), plain.digests, parents=parents)
            return
    assert content_of(inside, [pattern], (), plain.digests, parents=parents) == wanted


def test_directories_without_an_entry() -> None:
    plain = Plain(packed(lambda tar: tar.addfile(entry("a/b/f"))))
    assert plain.is_directory(b"a/b")
    assert [e.relative for e in PlainSources(plain, ()).entries(b"")] == [
        b"", b"a", b"a/b", b"a/b/f"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "entries",
    [
        [entry("s", tarfile.SYMTYPE)],
        [entry("d/" * 100 + "f")],
        [entry("f"), entry("h", tarfile.LNKTYPE)],
        [entry("p", tarfile.FIFOTYPE)],
        [entry("f"), entry("./f")],
        [entry("f"), entry("f/g")],
        [entry("f/g"), entry("f")],
        [entry("../f")],
        [entry("n" * 300)],
    ],
)
def test_what_only_a_filesystem_can_tell(entries: list[tarfile.TarInfo]) -> None:
    def add(tar: tarfile.TarFile) -> None:
        for one in entries:
            tar.addfile(one)

    with pytest.raises(Special):
        Plain(packed(add))


def test_damaged_and_compressed_ones() -> None:
    whole = packed(lambda tar: tar.addfile(entry("f", content=b"x" * 600), io.BytesIO(b"x" * 600)))
    with pytest.raises(Special):
        Plain(whole[:700])
    with pytest.raises(Special):
        Plain(packed(lambda tar: tar.addfile(entry("f")), "w:gz"))


def test_what_a_failed_unpacking_has_left_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spool(stream: context.Readable, directory: Path, archives: Archives) -> Digests:
        (directory / "f").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(context, "spool", spool)
    place = tmp_path / "context"
    place.mkdir()
    files = context.Context(place, cast("Archives", None))
    files.receive(io.BytesIO(packed(lambda tar: tar.addfile(entry("f")))), "")
    with pytest.raises(OSError, match="No space left"):
        print(files.directory)
    files.drop()
    until(lambda: not place.exists(), "the context stays")


@pytest.mark.root
def test_the_cache_knows_no_difference(daemon: Daemon, tmp_path: Path) -> None:
    """A context is held in memory once, unpacked the other time: the same steps are found."""
    (tmp_path / "f").write_text("F")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /d/\nCOPY f /e\nADD f /g\n")
    command = ("build", "-t", "plain-context", str(tmp_path))
    daemon.client("lading", *command)
    before = daemon.client("lading", "images", "-q", "plain-context").stdout
    (tmp_path / ".dockerignore").write_text(".dockerignore\nbig")
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    again = daemon.client("lading", *command).stdout.decode()
    assert again.count("Using cache") == 3
    assert daemon.client("lading", "images", "-q", "plain-context").stdout == before
    look = daemon.client("lading", "run", "--rm", "plain-context", "cat", "/d/f", "/e", "/g")
    assert look.stdout == b"FFF"
    daemon.client("lading", "rmi", "plain-context")
