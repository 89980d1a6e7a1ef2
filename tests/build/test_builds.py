"""Builds as a user sees them, with each client."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lading.testing.contexts import write_files
from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


def build(
    daemon: Daemon, client: str, place: Path, files: Mapping[str, str], *flags: str
) -> tuple[int, str]:
    write_files(place, files)
    done = daemon.client(client, "build", *flags, str(place), check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def run(daemon: Daemon, image: str, *words: str) -> str:
    return daemon.client("lading", "run", "--rm", image, *words).stdout.decode()


def test_stages_and_cache(daemon: Daemon, client: str, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM busybox AS a\nARG v\nRUN echo $v > /x && echo sa''id\nFROM busybox\n"
        "COPY f d /data/\nCOPY --from=a /x /y\nWORKDIR /w/v\nUSER 7\n"
        'CMD ["sh", "-c", "pwd; id -u; cat /y /data/*"]\n',
        "f": "F\n",
        "d/g": "G\n",
    }
    name = f"b-{client.replace('/', '-').strip('-')}"
    flags = ("--build-arg", f"v={name}", "-t", name)
    code, out = build(daemon, client, tmp_path, files, *flags)
    assert code == 0, out
    assert "said\n" in out
    assert f"Successfully tagged {name}:latest" in out
    assert run(daemon, name) == f"/w/v\n7\n{name}\nF\nG\n"
    os.utime(tmp_path / "f", (1, 1))
    code, again = build(daemon, client, tmp_path, {}, *flags)
    assert code == 0, again
    assert "said\n" not in again
    assert again.count("Using cache") == 7
    code, changed = build(daemon, client, tmp_path, {"f": "H\n"}, *flags)
    assert code == 0, changed
    assert run(daemon, name).endswith("H\nG\n")
    daemon.client("lading", "rmi", name)


def test_failing_command(daemon: Daemon, client: str, tmp_path: Path) -> None:
    code, out = build(
        daemon, client, tmp_path, {"Dockerfile": "FROM busybox\nRUN exit 3\n"}, "--force-rm"
    )
    assert code != 0
    assert "The command '/bin/sh -c exit 3' returned a non-zero code: 3" in out


def test_copy_rules(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM busybox\nRUN mkdir /real && ln -s real /link\n"
        "COPY a.txt /link/\nCOPY *.txt /all/\nCOPY --chown=5:6 --chmod=640 a.txt /owned\n"
        "COPY tree /tree\nCOPY <<E /doc\nhello $HOME\nE\nADD in.tar /out/\n",
        ".dockerignore": "tree/no*\n",
        "a.txt": "A\n",
        "b.txt": "B\n",
        "tree/yes": "1",
        "tree/nope": "2",
    }
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        entry = tarfile.TarInfo("deep/file")
        entry.size, entry.uid = 3, 9
        archive.addfile(entry, io.BytesIO(b"in\n"))
    code, out = build(daemon, "lading", tmp_path, files, "-t", "copied")
    assert code == 0, out
    shown = run(
        daemon, "copied", "sh", "-c",
        "cat /real/a.txt; ls /all /tree; stat -c '%u %g %a' /owned; stat -c %u /out/deep/file",
    )  # fmt: skip
    assert shown.split() == [
        "A", "/all:", "a.txt", "b.txt", "/tree:", "yes", "5", "6", "640", "9"
    ]  # fmt: skip
    daemon.client("lading", "rmi", "copied")


def test_the_context_is_there_for_all_who_look(daemon: Daemon, tmp_path: Path) -> None:
    """The last copy takes its files over from the context: no earlier, and no file twice."""
    name, one, many = (f"looked-{what}" for what in ("base", "one", "many"))
    files = {"Dockerfile": "FROM busybox\nONBUILD COPY d /triggered\n", "d/g": "G", "f": "F"}
    code, out = build(daemon, "lading", tmp_path, files, "-t", name)
    assert code == 0, out
    os.link(tmp_path / "f", tmp_path / "d" / "h")
    own = "COPY f /one\nCOPY . /whole\n"
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": f"FROM busybox\n{own}"}, "-t", one)
    assert code == 0, out
    look = "cat /one /whole/f /whole/d/g; stat -c %h /whole/f; echo $(ls /whole/d)"
    assert run(daemon, one, "sh", "-c", look) == "FFG2\ng h\n"
    other = (
        f"FROM busybox AS a\n{own}FROM {name} AS b\nCOPY d d/g /d/\n"
        "RUN --mount=type=bind,source=d,target=/m cat /m/g > /n\n"
        "FROM busybox\nCOPY --from=a / /a/\nCOPY --from=b / /b/\nCOPY [fg] d/g /last/\n"
    )
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": other}, "-t", many, "--no-cache")
    assert code == 0, out
    look = "cat /a/one /a/whole/d/g /b/triggered/g /b/d/g /b/n /last/f /last/g"
    assert run(daemon, many, "sh", "-c", look) == "FGGGGFG"
    daemon.client("lading", "rmi", name, one, many)


def test_context_cannot_be_left(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("../../../../../../etc")
    for source in ("out/", "../../../etc/passwd", "up/passwd"):
        text = f"FROM busybox\nCOPY {source} /x\n"
        code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text})
        assert code != 0
        assert "not found" in out or "outside" in out, out


def test_source_date_gives_the_same_image(daemon: Daemon, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM scratch\nCOPY f /f\nENV A=b\n", "f": "x"}
    found = set()
    for moment in (1000, 2000):
        (tmp_path / "f").write_text("x")
        os.utime(tmp_path / "f", (moment, moment))
        build(daemon, "lading", tmp_path, files if moment == 1000 else {}, "--no-cache",
              "--build-arg", "SOURCE_DATE_EPOCH=5", "-t", "dated")  # fmt: skip
        shown = json.loads(daemon.client("lading", "inspect", "dated").stdout)[0]
        found.add(shown["Id"])
        assert shown["Created"].startswith("1970-01-01T00:00:05")
    assert len(found) == 1
    daemon.client("lading", "rmi", "dated")


def test_no_container_is_left(daemon: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN true\nRUN false\n"
    build(daemon, "lading", tmp_path, {"Dockerfile": text}, "--force-rm")
    listed: subprocess.CompletedProcess[bytes] = daemon.client("lading", "ps", "-aq")
    assert listed.stdout == b""
