"""Archives there and back between Lading, dockerd, Podman and skopeo: ids stay."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image, docker_clients
from lading.testing.registries import needs

pytestmark = [pytest.mark.root, pytest.mark.peer]

Run = Callable[..., bytes]
#: What each image of the pair holds, by its tags.
TAGS = {"pair/one": ("pair/one:1", "pair/one:latest"), "pair/two": ("pair/two:1",)}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


@pytest.fixture(scope="module")
def lading(daemon: Daemon) -> Run:
    def run(*arguments: str, input: bytes | None = None) -> bytes:
        return daemon.client("lading", *arguments, input=input).stdout

    return run


@pytest.fixture(scope="module")
def podman(scratch: Path) -> Iterator[Run]:
    """Podman on a store of its own."""
    needs("podman")
    # Podman takes no runroot longer than 50 characters.
    short = Path(tempfile.mkdtemp(prefix="pod-"))
    base = [
        "podman", f"--root={scratch}/podman", f"--runroot={short}", "--storage-driver=vfs",
    ]  # fmt: skip

    def run(*arguments: str, input: bytes | None = None) -> bytes:
        return program(*base, *arguments, input=input)

    yield run
    shutil.rmtree(short, ignore_errors=True)


def program(*command: str, input: bytes | None = None) -> bytes:
    done = subprocess.run(command, input=input, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
    return done.stdout


def skopeo(*arguments: str) -> bytes:
    needs("skopeo")
    return program("skopeo", "--insecure-policy", *arguments)


def ids(run: Run) -> dict[str, str]:
    """The ids of the pair's images by tag, as a client of Docker's shows them."""
    names = [name for tags in TAGS.values() for name in tags]
    rows = run("image", "inspect", "--format", "{{.Id}}", *names)
    found = rows.decode().split()
    return {
        name: row if ":" in row else f"sha256:{row}" for name, row in zip(names, found, strict=True)
    }


def gone(run: Run) -> None:
    """Remove the pair."""
    run("rmi", "-f", *(name for tags in TAGS.values() for name in tags))


@pytest.fixture
def pair(lading: Run) -> dict[str, str]:
    """Two images with three tags; they share the base layer."""
    for name, tags in TAGS.items():
        lading("run", "--name", "maker", "busybox", "sh", "-c", f"echo {name} > /m; ln /m /n")
        lading("commit", "-c", 'CMD ["cat","/m"]', "-c", "ENV A=ä", "maker", tags[0])
        lading("rm", "maker")
        for other in tags[1:]:
            lading("tag", tags[0], other)
    return ids(lading)


def saved(run: Run, path: Path, *flags: str) -> Path:
    run("save", *flags, "-o", str(path), *TAGS)
    return path


def dockers(dockerd: Callable[..., str]) -> Run:
    return lambda *arguments, input=None: dockerd(*arguments, input=input).encode()


def test_dockerd_loads_ours_and_we_load_its(
    lading: Run, dockerd: Callable[..., str], pair: dict[str, str], tmp_path: Path
) -> None:
    docker = dockers(dockerd)
    docker("load", "-i", str(saved(lading, tmp_path / "ours.tar")))
    assert ids(docker) == pair
    theirs = saved(docker, tmp_path / "theirs.tar")
    gone(docker)
    gone(lading)
    said = lading("load", "-i", str(theirs)).decode()
    assert sorted(line.split(": ")[1] for line in said.splitlines()) == sorted(pair)
    assert ids(lading) == pair
    assert lading("run", "--rm", "pair/two:1") == b"pair/two\n"


@pytest.mark.parametrize("client", docker_clients())
def test_docker_clients_against_us(
    daemon: Daemon, lading: Run, pair: dict[str, str], tmp_path: Path, client: str
) -> None:
    """``docker save`` and ``docker load`` of each client, by files and by pipes."""

    def docker(*arguments: str, input: bytes | None = None) -> bytes:
        return daemon.client(client, *arguments, input=input).stdout

    path = saved(docker, tmp_path / "file.tar")
    piped = docker("save", *TAGS)
    for words, piped_in in (("-i", str(path)), None), ((), piped):
        gone(docker)
        said = docker("load", *words, input=piped_in).decode()
        assert all(f"Loaded image: {name}" in said for name in pair)
        assert ids(docker) == pair
    gone(docker)
    docker("load", input=gzip.compress(piped, 1))
    assert ids(docker) == pair


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_loads_ours_and_we_load_its(
    lading: Run, podman: Run, pair: dict[str, str], tmp_path: Path, form: str
) -> None:
    podman("load", "-i", str(saved(lading, tmp_path / "ours.tar")))
    try:
        theirs = {name: row for name, row in ids(podman).items() if name != "pair/two:1"}
        assert theirs.items() <= pair.items()
        many = ["--multi-image-archive"] if form == "docker-archive" else []
        names = list(pair) if many else ["pair/one:1"]
        podman("save", *many, f"--format={form}", "-o", str(tmp_path / "theirs.tar"), *names)
    finally:
        podman("rmi", "-f", "--all")
    gone(lading)
    lading("load", "-i", str(tmp_path / "theirs.tar"))
    # Podman's names have its host of local images in front.
    rows = lading("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").decode()
    found = dict(row.split() for row in rows.splitlines())
    wanted = {name: pair[name] for name in names}
    shown = {name: found.get(f"localhost/{name}", found.get(name, "")) for name in names}
    if form == "docker-archive":
        assert shown == wanted
    else:
        # The OCI form has a config of its own.
        assert all(shown.values())
    lading("rmi", "-f", *(n for n in found if "pair/" in n))


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("tag", ["pair/one:1", "pair/two:1"])
def test_skopeo_copies_both_ways(
    lading: Run, pair: dict[str, str], tmp_path: Path, form: str, tag: str
) -> None:
    lading("save", "-o", str(tmp_path / "ours.tar"), tag)
    copy = tmp_path / "copy.tar"
    name = f"docker.io/{tag}"
    skopeo("copy", f"docker-archive:{tmp_path}/ours.tar:{tag}", f"{form}:{copy}:{name}")
    gone(lading)
    lading("load", "-i", str(copy))
    found = json.loads(lading("inspect", tag))[0]
    if form == "docker-archive":
        assert found["Id"] == pair[tag]
    assert lading("run", "--rm", tag) == f"{tag[:-2]}\n".encode()
    lading("rmi", tag)
    skopeo("copy", f"oci-archive:{tmp_path}/ours.tar", f"dir:{tmp_path}/dir")
    manifest = json.loads((tmp_path / "dir/manifest.json").read_bytes())
    assert manifest["config"]["digest"] == pair[tag]


@pytest.mark.parametrize("packing", ["gzip", "zstd", "xz", "bzip2"])
def test_a_compressed_archive_by_a_pipe(lading: Run, pair: dict[str, str], packing: str) -> None:
    needs(packing)
    piped = lading("save", *TAGS)
    gone(lading)
    lading("load", input=program(packing, "-1", "-c", input=piped))
    assert ids(lading) == pair


def test_an_archive_of_2014(
    lading: Run, pair: dict[str, str], dockerd: Callable[..., str], tmp_path: Path
) -> None:
    """dockerd writes the files of both times: without ``manifest.json`` those of 2014 are left."""
    docker = dockers(dockerd)
    docker("load", "-i", str(saved(lading, tmp_path / "ours.tar")))
    with tarfile.open(saved(docker, tmp_path / "theirs.tar")) as theirs:
        theirs.extractall(tmp_path / "old", filter="tar")
    gone(docker)
    if not list((tmp_path / "old").glob("*/VERSION")):
        pytest.skip("dockerd 25 and later write no files of 2014")
    for path in [tmp_path / "old/manifest.json", *(tmp_path / "old").glob("*.json")]:
        path.unlink(missing_ok=True)
    with tarfile.open(tmp_path / "old.tar", "w") as old:
        old.add(tmp_path / "old", ".")
    gone(lading)
    said = lading("load", "-i", str(tmp_path / "old.tar")).decode()
    assert all(f"Loaded image: {name}" in said for name in pair)
    assert lading("run", "--rm", "pair/one:1") == b"pair/one\n"
    assert lading("run", "--rm", "pair/two:1") == b"pair/two\n"
    found = json.loads(lading("inspect", "pair/one:1"))[0]
    assert "A=ä" in found["Config"]["Env"]
    gone(lading)
