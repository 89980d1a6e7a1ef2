"""Dockerfiles in the styles of real projects on a real Debian base: what lading, dockerd and
buildah make of each, file by file, and what its containers print."""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, docker_clients
from lading.testing.debian import debian_base
from lading.testing.peers import Buildah, Image, Layer, built_by_dockerd, differences
from lading.testing.registries import needs, real_dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(900)]

PROJECTS = Path(__file__).parent / "projects"
BASE = "debian:bookworm"


@dataclass(frozen=True)
class Project:
    """One folder of ``projects``, and how its image is built and run."""

    name: str
    flags: tuple[str, ...] = ()
    peers: tuple[str, ...] = ("dockerd",)
    #: A Dockerfile of the same meaning in words that the peers know.
    translated: str = ""
    command: tuple[str, ...] = ()
    #: What its containers print, among other things.
    prints: str = ""


PROJECT = [
    Project("web", command=("check",), prints="app\n/home/app/src\n<h1>Hello, world!</h1>\n"),
    Project("compiled", prints="Hello, scratch\n"),
    Project("nginx", command=("nginx", "-t"), prints="listens on 80\n"),
    Project("database", command=("check",), prints="postgres\n700 postgres:postgres"),
    Project("source", prints='app 1.2\n{\n  "version": "1.2"\n}\n0\n'),
    Project("files", prints="/srv/again/new f 644 root:root 1 \n"),
    Project("onbuild", prints="env=production\nproduction /usr"),
    Project("caches", ("--secret", "id=token,src={}/token"), ("buildah",), prints="400 0\n"),
    Project("modern", translated="Dockerfile.classic", prints="raw = $RAW\nsecond\n"),
]

#: Files that hold a moment: logs, and dates of passwords are of the day.
OF_THE_MOMENT = re.compile(
    r"var/log/.*|var/cache/(apt|debconf)/.*|var/cache/ldconfig/aux-cache|.*\.pyc"
)

#: It deletes the places that a RUN mounts on, also those that were there, and leaves one behind.
MISTREATED_BY_BUILDAH = re.compile(r"var/(cache/apt|lib/apt/lists)|wheels(/.*)?|run/secrets")


@pytest.fixture(scope="module")
def contexts() -> Iterator[Path]:
    """The projects as a checkout with umask 022 has them, and the archive that one adds."""
    place = Path(tempfile.mkdtemp(prefix="projects-", dir="/tmp"))
    shutil.copytree(PROJECTS, place, symlinks=True, dirs_exist_ok=True)
    for path in (place, *place.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    with tarfile.open(place / "source/app-1.2.tar.gz", "w:gz") as archive:
        archive.add(place / "source/app-1.2", "app-1.2")
    (place / "token").write_text("sesame")
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def base() -> Path:
    needs("debootstrap")
    try:
        return debian_base()
    except ConnectionError as error:
        pytest.skip(f"no Debian base can be made here: {error}")


@pytest.fixture(scope="module")
def lading(base: Path) -> Iterator[Daemon]:
    with Daemon() as running:
        running.client("lading", "import", str(base), BASE, timeout=300)
        yield running


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="peers-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def saved(lading: Daemon, place: Path) -> Path:
    """The base as an image that all of them load."""
    lading.client("lading", "save", "-o", str(place / "base.tar"), BASE)
    return place / "base.tar"


@pytest.fixture(scope="module")
def dockerd(saved: Path, place: Path) -> Iterator[Callable[..., str]]:
    with (
        real_dockerd(place / "dockerd", "--storage-driver=overlay2") as docker,
        pytest.MonkeyPatch.context() as env,
    ):
        env.setenv("DOCKER_BUILDKIT", "0")
        docker("load", "-i", str(saved))
        yield docker


@pytest.fixture(scope="module")
def buildah(saved: Path, place: Path) -> Buildah:
    needs("buildah")
    made = Buildah(place, "--storage-driver=overlay")
    made("pull", f"docker-archive:{saved}")
    return made


def words(project: Project, contexts: Path, file: str = "") -> tuple[str, ...]:
    flags = [flag.format(contexts) for flag in project.flags]
    folder = contexts / project.name
    return (*flags, "-f", str(folder / (file or "Dockerfile")), str(folder))


def settled(layer: Layer) -> Layer:
    """Without the content of files that hold a moment."""
    return {
        path: (*node[:5], "", node[6]) if OF_THE_MOMENT.fullmatch(path) else node
        for path, node in layer.items()
    }


def same_trees(
    ours: Image, theirs: Image, count: int | None = None, besides: re.Pattern[str] | None = None
) -> None:
    both = [
        {path: node for path, node in layer.items() if not (besides and besides.fullmatch(path))}
        for layer in (settled(ours.tree(count)), settled(theirs.tree(count)))
    ]
    assert differences(*both) == ""


def by_lading(lading: Daemon, place: Path, client: str, tag: str, *words: str) -> Image:
    lading.client(client, "build", "-t", tag, *words, timeout=300)
    saved = place / "saved-by-lading.tar"
    lading.client("lading", "save", "-o", str(saved), tag)
    return Image(saved)


@pytest.mark.parametrize("project", PROJECT, ids=lambda p: p.name)
def test_project(
    lading: Daemon,
    dockerd: Callable[..., str],
    buildah: Buildah,
    place: Path,
    contexts: Path,
    project: Project,
) -> None:
    """Built and run by all that know its words."""
    ours = by_lading(lading, place, "lading", project.name, *words(project, contexts))
    run = ("run", "--rm", "--network=none", project.name, *project.command)
    printed = lading.client("lading", *run).stdout.decode()
    assert project.prints in printed
    file = words(project, contexts, project.translated)
    if "dockerd" in project.peers:
        theirs = built_by_dockerd(dockerd, place, project.name, *file)
        same_trees(ours, theirs)
        assert ours.config() == theirs.config()
        assert printed == dockerd(*run)
        if not project.translated:
            same_layers(ours, theirs)
    if "buildah" in project.peers:
        theirs = buildah.build(project.name, *file)
        same_trees(ours, theirs, besides=MISTREATED_BY_BUILDAH)
        assert ours.config() == theirs.config()


def same_layers(ours: Image, theirs: Image) -> None:
    """The same steps, each with the same result."""
    assert ours.history() == theirs.history()
    assert len(ours.layers) == len(theirs.layers)
    for number in range(1, len(ours.layers)):
        same_trees(ours, theirs, number)


@pytest.mark.parametrize("client", docker_clients())
def test_docker_clients(lading: Daemon, place: Path, contexts: Path, client: str) -> None:
    """What a docker client has built is what lading builds."""
    project = next(p for p in PROJECT if p.name == "source")
    flags = words(project, contexts)
    ours = by_lading(lading, place, "lading", project.name, *flags)
    other = by_lading(lading, place, client, f"{project.name}:docker", "--no-cache", *flags)
    assert other.diff_ids[2] != ours.diff_ids[2], "it has taken the cache"
    same_trees(ours, other)
    assert (ours.config(), ours.history()) == (other.config(), other.history())
