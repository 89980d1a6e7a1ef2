"""The images that dockerd and buildah build of the same file: trees, configs and history agree."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import BUSYBOX, Daemon, busybox_image
from lading.testing.registries import needs, real_dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer]


Node = tuple[Any, ...]

#: What the content decides in a line of history; and the way that Go prints a structure. Dockerds
#: since 23 forget the space between an owner and what is copied.
_CHANGING = re.compile(r" ?(file:|dir:|multi:)[0-9a-f]{64}|(HEALTHCHECK ).*")


class Image:
    """An image from the archive that ``save`` writes."""

    def __init__(self, archive: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            (entry,) = json.loads(_read(tar, "manifest.json"))
            self.document: dict[str, Any] = json.loads(_read(tar, entry["Config"]))
            self.layers = [_nodes(_read(tar, name)) for name in entry["Layers"]]

    def tree(self, count: int | None = None) -> dict[str, Node]:
        """What a container of it sees, or of its first so many layers, by path."""
        found: dict[str, Node] = {}
        for layer in self.layers[:count]:
            for name in layer:
                above, _, last = name.rpartition("/")
                if last == ".wh..wh..opq":
                    gone = [p for p in found if p.startswith(above + "/")]
                elif last.startswith(".wh."):
                    victim = f"{above}/{last[4:]}".lstrip("/")
                    gone = [p for p in found if p == victim or p.startswith(victim + "/")]
                else:
                    continue
                for path in gone:
                    del found[path]
            found |= {n: v for n, v in layer.items() if not n.rpartition("/")[2].startswith(".wh.")}
        return found

    def config(self) -> dict[str, Any]:
        """What a container of it starts with; what is empty is left out."""
        config = dict(self.document.get("config") or {})
        for name in ("Hostname", "Domainname", "Image", "ArgsEscaped"):
            config.pop(name, None)
        if config.get("WorkingDir") == "/":
            del config["WorkingDir"]  # the default, which newer peers spell out
        config = {name: value for name, value in config.items() if value}
        config["Env"] = sorted(config.get("Env", []))
        return {**config, "os": self.document["os"], "architecture": self.document["architecture"]}

    def history(self) -> list[tuple[str, bool]]:
        """What made it, and whether that made no layer."""
        return [
            (_CHANGING.sub(r"\1\2*", row.get("created_by", "")), bool(row.get("empty_layer")))
            for row in self.document["history"]
        ]


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _nodes(layer: bytes) -> dict[str, Node]:
    found: dict[str, Node] = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for entry in tar:
            name = entry.name.removeprefix("./").strip("/")
            if name in ("", "."):
                continue
            if entry.islnk():
                found[name] = found[entry.linkname.removeprefix("./").strip("/")]
                continue
            content = tar.extractfile(entry).read() if entry.isreg() else b""  # type: ignore[union-attr]
            attributes = {
                k: v for k, v in entry.pax_headers.items() if k.startswith("SCHILY.xattr.")
            }
            mode = 0 if entry.issym() else entry.mode & 0o7777
            kind = b"0" if entry.isreg() else entry.type
            found[name] = (
                kind, mode, entry.uid, entry.gid, entry.linkname,
                hashlib.sha256(content).hexdigest() if content else "", tuple(attributes.items()),
            )  # fmt: skip
    return found


@dataclass(frozen=True)
class Case:
    """One way to write a Dockerfile; ``peers`` are those that know all of its words."""

    name: str
    text: str
    flags: Sequence[str] = ()
    peers: Sequence[str] = ("dockerd", "buildah")


CASES = [
    Case(
        "distribution",
        """\
ARG base=busybox
FROM ${base}
LABEL maintainer="a b" org.example.x=y
ARG version=3
ENV LANG=C.UTF-8 PATH=/opt/bin:/bin VERSION=${version:-1}
RUN mkdir -p /var/lib/apt/lists && touch /var/lib/apt/lists/x && rm -rf /var/lib/apt/lists/*
RUN echo app:x:1000:1000::/home/app:/bin/sh >> /etc/passwd && echo app:x:1000: >> /etc/group
RUN mkdir /data && chown app:app /data && chmod 2770 /data
RUN ["/bin/sh", "-c", "echo exec > /exec"]
COPY --chown=app:app tree /srv
WORKDIR /srv/app/deep
COPY run.sh ./
RUN chmod 4755 run.sh && ln -s run.sh link && ln run.sh hard && rm -r /var \\
    && mkdir /var && touch /var/new
EXPOSE 80 443/udp
VOLUME ["/data", "/logs"]
USER app:1000
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --retries=2 CMD true || exit 1
ENTRYPOINT exec ./run.sh
CMD ["a", "b c"]
SHELL ["/bin/ash", "-ec"]
""",
        ("--build-arg", "version=7"),
    ),
    Case(
        "compiled",
        """\
FROM busybox AS build
WORKDIR /src
COPY src/*.c src/Makefile ./
RUN for f in *.c; do cat $f > ${f%.c}.o; done && cat *.o > app && chmod 755 app
RUN mkdir -p /out/lib /out/bin && cp app /out/bin && echo so > /out/lib/l.so.1 \\
    && ln -s l.so.1 /out/lib/l.so
FROM busybox AS unused
RUN true
FROM scratch
COPY --from=build /out/ /usr/local/
COPY --from=build /src/app /app
ENTRYPOINT ["/app"]
""",
    ),
    Case(
        "static",
        'FROM scratch\nADD busybox /bin/\nENV A=1\nENTRYPOINT ["/bin/busybox"]\nCMD ["true"]\n',
    ),
    Case(
        "copies",
        """\
FROM busybox
RUN mkdir -p /real/inner && chmod 700 /real && ln -s real /via && ln -s /nowhere/x /loose
COPY tree /plain
COPY tree/ /slash/
COPY tree/a tree/sub/ /several/
COPY tree/a /via/inner
COPY tree/a /via/new/name
COPY t*e/?  /pattern/
COPY . /all
COPY tree/link /link
ADD in.tar /unpacked
ADD in.tar.gz /mixed/
COPY --chown=12:34 tree/sub /owned/
ADD --chown=5 run.sh /bin/run
COPY ["with space", "/with space/"]
WORKDIR relative
WORKDIR /abs
WORKDIR more
""",
    ),
    Case(
        "inherited",
        """\
FROM busybox AS base
ENV A=1 B="two words" C='$A'
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "x"]
ONBUILD RUN echo triggered > /triggered
ONBUILD COPY tree/a /onbuild
FROM base
ENV D=${A}${B:+-set} E=\\$A
ENV OLD style value
LABEL one=1 "two words"="a \\"b\\""
RUN echo "$D:$E:$OLD" > /values
CMD echo shell form
""",
    ),
    Case(
        # What buildah 1.28 does not do: a shell of one's own for these, ranges.
        "shell",
        """\
FROM busybox
SHELL ["/bin/ash", "-ec"]
RUN echo "$0" > /shell
EXPOSE 1000-1002 99/udp
ENTRYPOINT exec true
HEALTHCHECK CMD exit 0
""",
        peers=("dockerd",),
    ),
    Case(
        "python",
        """\
FROM busybox
RUN --mount=type=cache,target=/root/.cache/pip mkdir -p /root/.cache/pip/x && echo lib > /lib.py
RUN --mount=type=bind,source=tree,target=/mnt/tree cat /mnt/tree/a > /from-bind
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x
COPY --chmod=750 run.sh /run.sh
""",
        peers=("buildah",),
    ),
]


def context(place: Path) -> None:
    """All files that the cases take."""
    for name, content in {
        "tree/a": "A\n", "tree/b": "B\n", "tree/sub/c": "C\n", "tree/sub/deep/d": "D\n",
        "src/one.c": "1", "src/two.c": "2", "src/Makefile": "all:\n", "src/no.h": "",
        "run.sh": "#!/bin/sh\n", "with space": "S", "secret/x": "no", "keep/x": "k", "drop/x": "d",
        ".dockerignore": "# comment\nsecret\n*/x\n!keep/x\nDockerfile\n.dockerignore\n",
    }.items():  # fmt: skip
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (place / "run.sh").chmod(0o755)
    (place / "tree/b").chmod(0o600)
    (place / "tree/sub").chmod(0o750)
    (place / "tree/link").symlink_to("a")
    (place / "tree/sub/up").symlink_to("../a")
    os.link(place / "tree/a", place / "tree/hard")
    shutil.copy(BUSYBOX, place / "busybox")
    for name, mode in (("in.tar", "w"), ("in.tar.gz", "w:gz")):
        with tarfile.open(place / name, mode) as archive:  # type: ignore[call-overload]
            for inner, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE)):
                entry = tarfile.TarInfo(inner)
                entry.type, entry.uid, entry.gid, entry.mode = kind, 7, 8, 0o710
                archive.addfile(entry)


#: Where it has mounted something, and what it has made on the way there.
LEFT_BY_BUILDAH = {"run", "mnt", "root/.cache"}

Build = Callable[[Case, Path], Image]


@pytest.fixture(scope="module")
def base(lading_daemon: Daemon) -> bytes:
    return lading_daemon.client("lading", "save", "busybox").stdout


@pytest.fixture(scope="module")
def lading_daemon() -> Iterator[Daemon]:
    """With a base that has what real ones have: the places that engines mount on."""
    with Daemon() as running:
        root = io.BytesIO(busybox_image())
        with tarfile.open(fileobj=root, mode="a") as archive:
            for name in ("dev", "proc", "sys", "dev/pts", "dev/shm"):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
                archive.addfile(tarfile.TarInfo(name))
        running.client("lading", "import", "-", "busybox", input=root.getvalue())
        yield running


@pytest.fixture(scope="module")
def peers(base: bytes) -> Iterator[dict[str, Build]]:
    needs("buildah")
    place = Path(tempfile.mkdtemp(prefix="peers-", dir="/tmp"))
    patch = pytest.MonkeyPatch()
    patch.setenv("DOCKER_BUILDKIT", "0")
    (place / "base.tar").write_bytes(base)
    with real_dockerd(place / "dockerd") as docker:
        docker("load", input=base)
        yield {
            "dockerd": functools.cache(functools.partial(by_dockerd, docker, place)),
            "buildah": functools.cache(functools.partial(by_buildah, place)),
        }
    patch.undo()
    shutil.rmtree(place, ignore_errors=True)


def by_dockerd(docker: Callable[..., str], place: Path, case: Case, source: Path) -> Image:
    docker("build", "-t", case.name, *case.flags, "-f", dockerfile(case, source), str(source))
    saved = place / "saved.tar"
    docker("save", "-o", str(saved), case.name)
    return Image(saved.read_bytes())


def by_buildah(place: Path, case: Case, source: Path) -> Image:
    def run(*words: str) -> None:
        done = subprocess.run(
            [
                "buildah", f"--root={place}/b", f"--runroot={place}/r", "--storage-driver=vfs",
                *words,
            ],
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {(done.stdout + done.stderr).decode()}"

    if not (place / "b").exists():
        run("pull", f"docker-archive:{place}/base.tar")
    run(
        "bud", "--format=docker", "--isolation=chroot", "--pull-never", "--identity-label=false",
        *limits(),
        "-t", case.name, *case.flags, "-f", dockerfile(case, source), str(source),
    )  # fmt: skip
    saved = place / "saved-by-buildah.tar"
    saved.unlink(missing_ok=True)
    run("push", case.name, f"docker-archive:{saved}:{case.name}")
    return Image(saved.read_bytes())


def limits() -> list[str]:
    """Its own limits for buildah's commands: by default it raises them, which not all hosts let."""
    numbers = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    return [
        "--ulimit={}={}:{}".format(name, *resource.getrlimit(number))
        for name, number in numbers.items()
    ]


def dockerfile(case: Case, source: Path) -> str:
    path = source / "Dockerfile"
    path.write_text(case.text)
    return str(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("context")
    place.chmod(0o755)
    context(place)
    return place


def by_lading(daemon: Daemon, client: str, case: Case, source: Path) -> Image:
    words = ("build", "-t", case.name, *case.flags, "-f", dockerfile(case, source), str(source))
    daemon.client(client, *words)
    return Image(daemon.client("lading", "save", case.name).stdout)


@pytest.mark.parametrize(
    ("case", "peer"), [(c, p) for c in CASES for p in c.peers], ids=lambda v: getattr(v, "name", v)
)
def test_image_is_the_same(
    lading_daemon: Daemon, peers: dict[str, Build], source: Path, case: Case, peer: str
) -> None:
    ours, theirs = by_lading(lading_daemon, "lading", case, source), peers[peer](case, source)
    tree = theirs.tree()
    if peer == "buildah":
        for name in LEFT_BY_BUILDAH - ours.tree().keys():
            tree.pop(name, None)
    assert differences(ours.tree(), tree) == ""
    assert ours.config() == theirs.config()
    if peer == "dockerd":
        assert ours.history() == theirs.history()
        assert len(ours.layers) == len(theirs.layers)
        for number in range(len(ours.layers)):
            # Not all drivers write the same down for it.
            assert differences(ours.tree(number + 1), theirs.tree(number + 1)) == "", number


def differences(ours: dict[str, Node], theirs: dict[str, Node]) -> str:
    return "\n".join(
        f"{path}: {ours.get(path)} where theirs is {theirs.get(path)}"
        for path in sorted({*ours, *theirs})
        if ours.get(path) != theirs.get(path)
    )


@pytest.mark.parametrize("case", [CASES[0]], ids=lambda case: case.name)
def test_every_client_builds_the_same(
    lading_daemon: Daemon, client: str, source: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    ours = by_lading(lading_daemon, "lading", case, source)
    other = by_lading(lading_daemon, client, case, source)
    assert differences(ours.tree(), other.tree()) == ""
    assert (ours.config(), ours.history()) == (other.config(), other.history())
