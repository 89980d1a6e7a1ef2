"""ADD and COPY in all their forms, and where contexts come from; with real clients and servers."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import os
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from lading.testing.contexts import write_files
from lading.testing.daemon import Daemon
from lading.testing.waiting import listens, until

pytestmark = pytest.mark.root


def built(
    daemon: Daemon, client: str, *arguments: str, input: bytes | None = None, check: bool = True
) -> str:
    done = daemon.client(client, "build", "--force-rm", *arguments, input=input, check=False)
    out = (done.stdout + done.stderr).decode()
    assert (done.returncode == 0) == check, out
    return out


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server over ``tmp_path/web``."""
    (tmp_path / "web").mkdir(exist_ok=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Not on the terminal."""

        def do_GET(self) -> None:
            """Also one that leads away."""
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "ftp://127.0.0.1/x")
                self.end_headers()
            else:
                super().do_GET()

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def git(place: Path, *arguments: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c"}
    who |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}
    command = ["git", "-c", "init.defaultBranch=main", "-C", str(place), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **who}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a branch, a tag and a directory that is a context of its own."""
    place = tmp_path / "web" / "r.git"
    place.mkdir(parents=True, exist_ok=True)
    git(place, "init", "-q")
    text = "FROM busybox\nCOPY f /f\nRUN cat /f; ls -a / | grep -c '^.git$'; true\n"
    write_files(
        place, {"Dockerfile": text, "f": "first\n", "sub/Dockerfile": text, "sub/f": "below\n"}
    )
    git(place, "add", "-A")
    git(place, "commit", "-qm", "one")
    git(place, "tag", "v1")
    git(place, "checkout", "-qb", "other")
    write_files(place, {"f": "second\n"})
    git(place, "commit", "-qam", "two")
    git(place, "checkout", "-q", "main")
    return place


def served(repository: Path) -> str:
    """Its files for a server that knows nothing of git."""
    git(repository, "update-server-info")
    inner = repository / ".git"
    for name in os.listdir(inner):
        os.rename(inner / name, repository / name)
    inner.rmdir()
    return f"/{repository.name}"


def test_context_of_a_repository(daemon: Daemon, repository: Path) -> None:
    address = f"file://{repository}"
    for fragment, told in (("", "first"), ("#other", "second"), ("#v1:sub", "below")):
        assert f"\n{told}\n" in built(daemon, "lading", "--no-cache", address + fragment)
    commit = git(repository, "rev-parse", "other")
    assert "\nsecond\n" in built(daemon, "lading", "--no-cache", f"{address}#{commit}")
    assert "is no directory" in built(daemon, "lading", f"{address}#:none", check=False)
    assert "main" not in built(daemon, "lading", f"{address}#none", check=False)


def test_repository_over_http(
    daemon: Daemon, client: str, repository: Path, site: str, tmp_path: Path
) -> None:
    commit = git(repository, "rev-parse", "main")
    url = site + served(repository)
    if client == "lading":
        out = built(daemon, client, "--no-cache", f"{url}#other")
        assert "\nsecond\n" in out
    text = (
        f"FROM busybox\nENV c={client}\nADD {url} /r\nADD {url}#other:sub /s/\n"
        f"ADD --keep-git-dir=true --checksum={commit} {url} /kept\n"
        "RUN ls -a /r /s /kept/.git; cat /r/f /s/f\n"
    )
    write_files(tmp_path / "c", {"Dockerfile": text})
    out = built(daemon, client, str(tmp_path / "c"))
    assert "first\nbelow\n" in out
    assert "HEAD" in out
    write_files(tmp_path / "c", {"Dockerfile": f"FROM scratch\nADD --checksum=0123 {url} /r\n"})
    assert "expected checksum to match 0123" in built(
        daemon, client, str(tmp_path / "c"), check=False
    )


def test_add_of_a_url(daemon: Daemon, client: str, site: str, tmp_path: Path) -> None:
    content = b"from afar\n"
    (tmp_path / "web" / "a file").write_bytes(content)
    os.utime(tmp_path / "web" / "a file", (1_000_000_000, 1_000_000_000))
    digest = hashlib.sha256(content).hexdigest()
    text = (
        f"FROM busybox\nENV c={client}\nARG site={site}\nADD $site/a%20file /in/\n"
        f"ADD --chmod=755 --chown=1:2 --checksum=sha256:{digest} {site}/a%20file /named\n"
        "RUN cat '/in/a file'; stat -c '%a %u %Y' '/in/a file'; stat -c '%a %u %g' /named\n"
    )
    write_files(tmp_path / "c", {"Dockerfile": text})
    out = built(daemon, client, str(tmp_path / "c"))
    assert "from afar\n600 0 1000000000\n755 1 2\n" in out
    for line, told in (
        (f"ADD --checksum=sha256:{'0' * 64} {site}/a%20file /x", "digest mismatch"),
        (f"ADD {site}/none /x", "404"),
        (f"ADD {site}/away /x", "no http(s) URL"),
        (f"ADD {site}/ /x/", "cannot determine filename"),
    ):
        write_files(tmp_path / "c", {"Dockerfile": f"FROM busybox\n{line}\n"})
        assert told in built(daemon, client, str(tmp_path / "c"), check=False)


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.gid = len(content), 9, 8
            tar.addfile(entry, io.BytesIO(content.encode()))
    return out.getvalue()


def test_archives_are_unpacked(daemon: Daemon, client: str, site: str, tmp_path: Path) -> None:
    place = tmp_path / "c"
    text = (
        f"FROM busybox\nENV c={client}\nADD *.tar* plain /all/\nADD --chown=1:2 a.tar.gz /owned\n"
        f"ADD --unpack=false a.tar.gz /kept/\nADD {site}/b.tar /far/\n"
        f"ADD --unpack=true {site}/b.tar /near\n"
        "RUN ls /all; stat -c '%u %g' /all/gz /owned/gz; ls /kept /far /near\n"
    )
    write_files(place, {"Dockerfile": text, "plain": "p"})
    (place / "a.tar.gz").write_bytes(gzip.compress(archive(gz="1")))
    (place / "a.tar.bz2").write_bytes(bz2.compress(archive(bz2="1")))
    (place / "a.tar.xz").write_bytes(lzma.compress(archive(xz="1")))
    (place / "a.tar.zst").write_bytes(zstandard.compress(archive(zst="1")))
    (place / "b.tar").write_bytes(archive(plain_tar="1"))
    (tmp_path / "web" / "b.tar").write_bytes(archive(remote="1"))
    out = built(daemon, client, str(place))
    assert "bz2\ngz\nplain\nplain_tar\nxz\nzst\n9 8\n1 2\n" in out
    assert "/far:\nb.tar\n" in out
    assert "/kept:\na.tar.gz\n" in out
    assert "/near:\nremote\n" in out


def test_an_archive_cannot_leave_its_place(daemon: Daemon, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in (f"../../../../../..{outside}", "link/x"):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(link)
            tar.addfile(tarfile.TarInfo(name))
    write_files(tmp_path / "c", {"Dockerfile": "FROM busybox\nADD bad.tar /x/\n"})
    (tmp_path / "c" / "bad.tar").write_bytes(out.getvalue())
    daemon.client("lading", "build", "--force-rm", str(tmp_path / "c"), check=False)
    assert not outside.exists()
    assert not (tmp_path / "x").exists()


def test_copy_forms(daemon: Daemon, client: str, tmp_path: Path) -> None:
    text = (
        f"FROM busybox\nENV c={client}\nRUN ln -s /real /link && mkdir /real\n"
        "COPY --parents a/b/x.txt a/./b/y.md **/*.deep /p/\n"
        "COPY --exclude=*.md --exclude=!y.md a/b /e/\n"
        "COPY --chmod=u=rwX,go-rwx --chown=nobody a /m\n"
        'COPY ["sp ace", "two  blanks", "/j/"]\n'
        "COPY a/b/x.txt /link\nCOPY --link a/b/x.txt /link2/f\nCOPY a/b/* glob?[a].c /g/\n"
        "RUN cd /p && find . | sort; ls /e /j /real /link2 /g; "
        "stat -c '%a %u %g' /m /m/b/x.txt\n"
    )
    files = {
        "Dockerfile": text, "a/b/x.txt": "x", "a/b/y.md": "y", "a/b/z.md": "z",
        "a/c/d/e.deep": "d", "sp ace": "s", "two  blanks": "q", "glob1a.c": "g",
    }  # fmt: skip
    write_files(tmp_path, files)
    out = built(daemon, client, str(tmp_path))
    for lines in (
        ".\n./a\n./a/b\n./a/b/x.txt\n./a/c\n./a/c/d\n./a/c/d/e.deep\n./b\n./b/y.md\n",
        "/e:\nx.txt\ny.md\n",
        "/g:\nglob1a.c\nx.txt\ny.md\nz.md\n",
        "/j:\nsp ace\ntwo  blanks\n",
        "/link2:\nf\n",
        "/real:\nx.txt\n",
        "755 65534 65534\n600 65534 65534\n",
    ):
        assert lines in out, out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("COPY a b /x", "end with a /"),
        ("COPY none /x", "stat none: file does not exist"),
        ("COPY --chmod=u+q a /x", "invalid chmod parameter: 'u+q'"),
        ("COPY --chown=ghost a /x", "can't find 'ghost'"),
        ("COPY --form=x a /x", "did you mean --from?"),
        ("COPY --link=maybe a /x", "expecting boolean value"),
        ("COPY a", "at least two arguments"),
        ("COPY a /bin/busybox/", "not a directory"),
        ("COPY d /bin/busybox", "not a directory"),
        ("COPY --from=$x a /b", "variable expansion is not supported"),
        ("ADD --checksum=sha256:00 a /x", "for one remote source"),
        ("CMD [1]", "comprised of strings only"),
    ],
)
def test_wrong_forms(daemon: Daemon, tmp_path: Path, line: str, told: str) -> None:
    write_files(tmp_path, {"Dockerfile": f"FROM busybox\n{line}\n", "a": "", "b": "", "d/f": ""})
    out = built(daemon, "lading", str(tmp_path), check=False)
    assert told in out
    assert "Dockerfile:2: " in out
    assert f"\n    {line}\n" in out
    assert out.rstrip().endswith("^")


IGNORE = "*.log\n!keep.log\nsecret/**\n!secret/ok\n/Dockerfile\n.dockerignore\ntmp*/\n"
TREE = {
    "a.log": "", "keep.log": "", "sub/b.log": "", "secret/no": "", "secret/ok": "", "tmp1/x": "",
    "f": "", ".dockerignore": IGNORE,
    "Dockerfile": "FROM busybox\nCOPY . /c\nRUN cd /c && echo kept: $(find . -type f | sort)\n",
}  # fmt: skip
KEPT = "kept: ./f ./keep.log ./secret/ok ./sub/b.log\n"


def packed(place: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(place, ".")
    return out.getvalue()


def test_ignored_files(daemon: Daemon, client: str, tmp_path: Path) -> None:
    write_files(tmp_path, TREE)
    assert KEPT in built(daemon, client, "--no-cache", str(tmp_path))
    # An archive comes with everything: the daemon drops the same.
    assert KEPT in built(daemon, client, "--no-cache", "-", input=packed(tmp_path))
    squeezed = gzip.compress(packed(tmp_path))
    assert KEPT in built(daemon, client, "--no-cache", "-", input=squeezed)


def test_ignored_files_of_a_remote_context(
    daemon: Daemon, client: str, site: str, tmp_path: Path
) -> None:
    write_files(tmp_path / "c", TREE)
    (tmp_path / "web" / "c.tar").write_bytes(packed(tmp_path / "c"))
    assert KEPT in built(daemon, client, "--no-cache", f"{site}/c.tar")
    (tmp_path / "web" / "only").write_text("FROM busybox\nRUN echo from a text\n")
    assert "from a text\n" in built(daemon, client, "--no-cache", f"{site}/only")


def test_a_list_of_the_dockerfile(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path, TREE)
    write_files(tmp_path, {"d/My": TREE["Dockerfile"], "d/My.dockerignore": "**/*\n!f\n"})
    out = built(daemon, "lading", "--no-cache", "-f", str(tmp_path / "d/My"), str(tmp_path))
    assert "kept: ./f\n" in out
    write_files(tmp_path, {"../My": TREE["Dockerfile"], "../My.dockerignore": "**/*\n!keep.log\n"})
    out = built(daemon, "lading", "--no-cache", "-f", str(tmp_path / "../My"), str(tmp_path))
    assert "kept: ./keep.log\n" in out


def test_dockerfiles_from_elsewhere(daemon: Daemon, client: str, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"f": "data\n"})
    text = b"FROM busybox\nCOPY . /c\nRUN ls -a /c; cat /c/f\n"
    out = built(daemon, client, "--no-cache", "-f", "-", str(tmp_path / "c"), input=text)
    assert ".\n..\nf\ndata\n" in out
    (tmp_path / "Other").write_bytes(text)
    place = str(tmp_path / "c")
    out = built(daemon, client, "--no-cache", "-f", str(tmp_path / "Other"), place)
    assert ".\n..\nf\ndata\n" in out
    out = built(daemon, client, "--no-cache", "-", input=b"FROM busybox\nRUN echo from stdin\n")
    assert "from stdin\n" in out


def test_git_daemon(daemon: Daemon, repository: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = str(repository.parent)
    process = subprocess.Popen(
        ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={base}", base],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: listens(port), "git daemon does not answer")
        url = f"git://127.0.0.1:{port}/r.git#other"
        assert "\nsecond\n" in built(daemon, "lading", "--no-cache", url)
        # docker's own client clones by itself; here the daemon does.
        text = f"FROM busybox\nADD {url}:sub /r\nRUN cat /r/f\n"
        out = built(daemon, "lading", "--no-cache", "-", input=text.encode())
        assert "\nbelow\n" in out
    finally:
        process.terminate()
        process.wait()
