"""The images that dockerd and buildah build of the same file: trees, configs and history agree."""

from __future__ import annotations

import functools
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lading.testing.daemon import BUSYBOX, Daemon, busybox_image
from lading.testing.peers import Buildah, Image, built_by_dockerd, differences
from lading.testing.registries import needs, real_dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer]


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
        buildah = Buildah(place)
        buildah("pull", f"docker-archive:{place}/base.tar")
        yield {
            "dockerd": functools.cache(functools.partial(by_dockerd, docker, place)),
            "buildah": functools.cache(functools.partial(by_buildah, buildah)),
        }
    patch.undo()
    shutil.rmtree(place, ignore_errors=True)


def by_dockerd(docker: Callable[..., str], place: Path, case: Case, source: Path) -> Image:
    return built_by_dockerd(docker, place, case.name, *words_of(case, source))


def by_buildah(buildah: Buildah, case: Case, source: Path) -> Image:
    return buildah.build(case.name, *words_of(case, source))


def words_of(case: Case, source: Path) -> tuple[str, ...]:
    return (*case.flags, "-f", dockerfile(case, source), str(source))


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
    daemon.client(client, "build", "-t", case.name, *words_of(case, source))
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


@pytest.mark.parametrize("case", [CASES[0]], ids=lambda case: case.name)
def test_every_client_builds_the_same(
    lading_daemon: Daemon, client: str, source: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    ours = by_lading(lading_daemon, "lading", case, source)
    other = by_lading(lading_daemon, client, case, source)
    assert differences(ours.tree(), other.tree()) == ""
    assert (ours.config(), ours.history()) == (other.config(), other.history())
