"""``.dockerignore``, the rules of ``cp``, and tars that must not be trusted."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from lading.cli.errors import Failure
from lading.cli.files.copypaths import (
    Place,
    keep_ending,
    local_source,
    local_target,
    plan,
    split_argument,
    split_entry,
)
from lading.cli.files.pack import END, Packer
from lading.cli.files.unpack import unpack
from lading.cli.images.context import make_context
from lading.errors import Invalid
from lading.model.dockerignore import Ignore


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.md"], "a.md", True),
        (["*.md"], "sub/a.md", False),
        (["**/*.md"], "sub/deep/a.md", True),
        (["**/*.md"], "a.md", True),
        (["sub"], "sub/any/file", True),
        (["/sub"], "sub/file", True),
        (["sub/"], "sub/file", True),
        (["sub/*"], "sub/file", True),
        (["sub/*"], "sub/deep/file", True),
        (["sub/**"], "sub", False),
        (["sub/**"], "sub/x", True),
        (["a?c"], "abc", True),
        (["a?c"], "a/c", False),
        (["[ab].txt"], "b.txt", True),
        (["[^ab].txt"], "b.txt", False),
        (["*", "!keep"], "keep", False),
        (["*", "!keep"], "keep/below", False),
        (["*", "!keep"], "other", True),
        (["*", "!keep", "keep/secret"], "keep/secret", True),
        (["*.md", "!README*.md"], "README-a.md", False),
        (["!x", "x"], "x", True),
        (["# comment", "", "   "], "# comment", False),
        (["  spaced  "], "spaced", True),
        (["./a/../b"], "b", True),
        (["a\\*b"], "a*b", True),
        (["a\\*b"], "axb", False),
        (["."], "x", False),
        (["**"], "any/thing", True),
        (["a/**/b"], "a/b", True),
        (["a/**/b"], "a/x/y/b", True),
        (["\ufeffbom"], "bom", True),
        (["[ab]+(c)"], "a+(c)", True),
    ],
)
def test_dockerignore(lines: list[str], path: str, ignored: bool) -> None:
    assert Ignore(lines).matches(path) is ignored


def test_directories_are_walked_for_exceptions_only() -> None:
    assert Ignore(["a"]).may_skip("a")
    assert not Ignore(["a", "!a/b"]).may_skip("a")
    assert Ignore(["a", "!c/b"]).may_skip("a")
    assert not Ignore(["a", "!**/b"]).may_skip("a")


def test_bad_patterns() -> None:
    with pytest.raises(Invalid, match="illegal exclusion"):
        Ignore(["!"])
    with pytest.raises(Invalid, match="syntax error"):
        Ignore(["[a"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("box:/a", ("box", "/a")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("a", ("", "a")),
        ("box:a:b", ("box", "a:b")),
        ("-", ("", "-")),
    ],
)
def test_arguments_of_cp(text: str, parts: tuple[str, str]) -> None:
    assert split_argument(text) == parts


def test_endings_have_meaning() -> None:
    assert keep_ending("/a", "a/") == "/a/"
    assert keep_ending("/a", "a/.") == "/a/."
    assert split_entry("/a/b/") == ("/a", "b")
    assert split_entry("/a/b/.") == ("/a/b", ".")
    assert split_entry("/") == ("/", "/")


DIRECTORY = Place("/t", exists=True, is_dir=True)
FILE = Place("/t", exists=True, is_dir=False)
MISSING = Place("/t", exists=False, is_dir=False)


@pytest.mark.parametrize(
    ("source", "target", "where", "names"),
    [
        (Place("/s/f", exists=True, is_dir=False), DIRECTORY, "/t", {"f": "f"}),
        (Place("/s/f", exists=True, is_dir=False), FILE, "/", {"f": "t"}),
        (Place("/s/f", exists=True, is_dir=False), MISSING, "/", {"f": "t"}),
        (Place("/s/d", exists=True, is_dir=True), DIRECTORY, "/t", {"d": "d", "d/x": "d/x"}),
        (Place("/s/d", exists=True, is_dir=True), MISSING, "/", {"d": "t", "d/x": "t/x"}),
        (Place("/s/d/.", exists=True, is_dir=True), DIRECTORY, "/t", {"./x": "./x"}),
        (Place("/s/d/.", exists=True, is_dir=True), MISSING, "/", {".": "t", "./x": "t/x"}),
        (Place("/", exists=True, is_dir=True), MISSING, "/", {"/": "t", "etc/x": "t/etc/x"}),
    ],
)
def test_where_cp_puts_it(source: Place, target: Place, where: str, names: dict[str, str]) -> None:
    directory, rename = plan(source, target)
    assert directory == where
    assert {name: rename(name) for name in names} == names


def test_what_cp_refuses() -> None:
    with pytest.raises(Failure, match="cannot copy directory"):
        plan(Place("/s/d", exists=True, is_dir=True), FILE)
    with pytest.raises(Failure, match="no such directory"):
        plan(Place("/s/f", exists=True, is_dir=False), Place("/t/", exists=False, is_dir=False))


def test_local_sides_of_cp(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("dir")
    assert not local_source(f"{tmp_path}/link", follow=False).is_dir
    assert local_source(f"{tmp_path}/link/", follow=False).is_dir
    followed = local_source(f"{tmp_path}/link", follow=True)
    assert (followed.is_dir, followed.rebase, followed.path) == (True, "link", f"{tmp_path}/dir")
    assert local_target(f"{tmp_path}/link").path == f"{tmp_path}/dir"
    for bad in ("file/", "none"):
        with pytest.raises(Failure):
            local_source(f"{tmp_path}/{bad}", follow=False)
    with pytest.raises(Failure, match="does not exist"):
        local_target(f"{tmp_path}/none/below")


def archive(*entries: tuple[str, str, str]) -> io.BytesIO:
    """Entries are (name, kind, link or content)."""
    kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}
    kinds["hard"] = tarfile.LNKTYPE
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, text in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kinds[kind], 0o755
            content = text.encode() if kind == "file" else b""
            info.linkname = "" if kind in ("file", "dir") else text
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


def test_a_tree_survives_pack_and_unpack(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_bytes(b"x" * 70_000)
    (source / "deep/file").chmod(0o640)
    os.link(source / "deep/file", source / "same")
    (source / "link").symlink_to("deep/file")
    os.mkfifo(source / "pipe")
    (source / ("long" * 60)).write_text("long name")
    os.utime(source / "deep", (1_000_000, 1_000_000))
    packed = b"".join([*Packer().tree(str(source), "copy"), END])
    (tmp_path / "target").mkdir()
    unpack(io.BytesIO(packed), str(tmp_path / "target"), rename=lambda name: name)
    copy = tmp_path / "target/copy"
    assert (copy / "deep/file").read_bytes() == b"x" * 70_000
    assert (copy / "deep/file").stat().st_mode & 0o777 == 0o640
    assert (copy / "same").stat().st_ino == (copy / "deep/file").stat().st_ino
    assert os.readlink(copy / "link") == "deep/file"
    assert (copy / "deep").stat().st_mtime == 1_000_000
    assert (copy / ("long" * 60)).read_text() == "long name"


@pytest.mark.parametrize(
    "entries",
    [
        [("../out", "file", "x")],
        [("a/../../out", "file", "x")],
        [("a", "link", ".."), ("a/out", "file", "x")],
        [("a", "link", "/"), ("a/tmp/out", "file", "x")],
        [("a", "link", "../outside"), ("a", "dir", ""), ("a/x", "file", "x")],
        [("a", "hard", "../outside")],
        [("l", "link", ".."), ("a", "hard", "l/outside")],
    ],
)
def test_nothing_leads_out_of_the_target(
    tmp_path: Path, entries: list[tuple[str, str, str]]
) -> None:
    (tmp_path / "outside").write_text("mine")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(Failure):
        unpack(archive(*entries), str(target), rename=lambda name: name)
    assert {p.name for p in tmp_path.iterdir()} == {"outside", "target"}
    assert (tmp_path / "outside").read_text() == "mine"


def test_an_absolute_name_stays_inside(tmp_path: Path) -> None:
    unpack(archive(("/etc/x", "file", "x")), str(tmp_path), rename=lambda name: name)
    assert (tmp_path / "etc/x").read_text() == "x"


def test_a_file_does_not_replace_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(Failure, match="cannot overwrite directory"):
        unpack(archive(("a", "file", "x")), str(tmp_path), rename=lambda name: name)


def sent(source: Path | str, dockerfile: str = "") -> tuple[dict[str, bytes | None], str]:
    """The files of a context, and the Dockerfile's name in it."""
    with ExitStack() as stack:
        context = make_context(str(source), dockerfile, stack)
        assert context.body is not None
        packed = io.BytesIO(b"".join(context.body))
    found: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=packed) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            found[info.name] = file.read() if file else None
            assert (info.uid, info.gid) == (0, 0)
    return found, context.dockerfile


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src/deep").mkdir(parents=True)
    for name in ("Dockerfile", "a.md", "README.md", "src/main", "src/deep/x", "src/deep/keep"):
        (root / name).write_text(name)
    return root


def test_a_context_without_what_is_ignored(project: Path) -> None:
    (project / ".dockerignore").write_text(
        "*.md\n!README.md\nsrc/deep\n!src/deep/keep\nDockerfile\n"
    )
    found, dockerfile = sent(project)
    assert dockerfile == "Dockerfile"
    assert set(found) == {
        *(".dockerignore", "Dockerfile", "README.md"),
        *("src", "src/main", "src/deep/keep"),
    }


def test_a_dockerfile_from_elsewhere(project: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("FROM elsewhere")
    (project / ".dockerignore").write_text("a.md\n")
    found, dockerfile = sent(project, str(tmp_path / "other"))
    assert dockerfile.startswith(".dockerfile.")
    assert found[dockerfile] == b"FROM elsewhere"
    lines = (found[".dockerignore"] or b"").decode().splitlines()
    assert lines == ["a.md", dockerfile, ".dockerignore"]
    assert "a.md" not in found


def test_a_dockerfile_below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src/Other").write_text("FROM x")
    assert sent(project, "src/Other")[1] == "src/Other"
    monkeypatch.chdir(project / "src")
    assert sent(project, "Other")[1] == "src/Other"


def test_contexts_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not found"):
        sent(tmp_path / "none")
    with pytest.raises(Failure, match="no such file"):
        sent(tmp_path)
