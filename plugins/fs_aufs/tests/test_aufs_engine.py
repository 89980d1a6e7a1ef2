"""The engine on AUFS, as its users meet it, where the kernel has it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.model import oci
from lading.testing.daemon import Daemon, busybox_image
from lading.testing.images import made_config, made_layer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        "aufs" not in Path("/proc/filesystems").read_text().split(),
        reason="this kernel has no AUFS (tests/guest boots one that has)",
    ),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon("--storage-driver=aufs") as daemon:
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        yield daemon


def lading(daemon: Daemon, *words: str, input: bytes | None = None) -> str:
    return daemon.client("lading", *words, input=input, timeout=900).stdout.decode()


def run(daemon: Daemon, *words: str) -> str:
    return lading(daemon, "run", "--rm", "--network", "none", *words)


def saved_image(name: str, depth: int) -> bytes:
    """An archive as ``docker save`` makes it: busybox, and layers that each take away as well."""
    tars = [busybox_image()]
    for number in range(1, depth):
        files = {f"layers/{number}": b"%d" % number, "top": b"%d" % number}
        if number % 2 == 0:
            files[f"layers/.wh.{number - 1}"] = b""
        tars.append(made_layer(files))
    files = {f"{number}.tar": tar for number, tar in enumerate(tars)}
    index = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": [*files]}]
    files |= {
        "config.json": made_config([oci.digest_of(tar) for tar in tars]),
        "manifest.json": json.dumps(index).encode(),
    }
    return made_layer(files)


def test_it_is_mounted(daemon: Daemon) -> None:
    assert lading(daemon, "info", "-f", "{{.Driver}}") == "aufs\n"
    assert " / aufs " in run(daemon, "busybox", "cat", "/proc/mounts")


@pytest.mark.parametrize("depth", [100, 140])
def test_image_of_many_layers(daemon: Daemon, depth: int) -> None:
    name = f"deep{depth}"
    lading(daemon, "load", input=saved_image(name, depth))
    shown = run(daemon, name, "sh", "-c", "cat /top; echo; ls /layers").split()
    kept = [number for number in range(1, depth) if number % 2 == 0 or number == depth - 1]
    assert shown[0] == str(depth - 1)
    assert sorted(map(int, shown[1:])) == kept
    script = "echo new > /layers/new; rm /layers/2; echo changed > /top"
    lading(daemon, "run", "--name", name, "--network", "none", name, "sh", "-c", script)
    changes = set(lading(daemon, "diff", name).splitlines())
    assert changes == {"C /layers", "A /layers/new", "D /layers/2", "C /top"}
    lading(daemon, "commit", name, f"{name}-more")
    look = "cat /top /layers/new; ls /layers/2 2>/dev/null"
    assert run(daemon, f"{name}-more", "sh", "-c", f"{look}; true") == "changed\nnew\n"
    lading(daemon, "rm", name)
    lading(daemon, "rmi", f"{name}-more", name)


def test_build_and_save(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN echo one > /one && ln /one /twin && rm -r /home\n"
        "RUN mkdir /home && echo two >> /one && chmod 2750 /var\nCOPY Dockerfile /home/\n"
    )
    lading(daemon, "build", "-q", "-t", "built", "--network", "none", str(tmp_path))
    script = "cat /one; stat -c %a /var; ls /home"
    assert run(daemon, "built", "sh", "-c", script) == "one\ntwo\n2750\nDockerfile\n"
    saved = daemon.client("lading", "save", "built").stdout
    names = [name for layer in layers_of(saved) for name in layer]
    # Nothing of AUFS's own is in a layer but the marks that OCI has taken from it.
    own = [name for name in names if Path(name).name.startswith(".wh..wh.")]
    assert {Path(name).name for name in own} <= {".wh..wh..opq"}
    lading(daemon, "rmi", "built")
    lading(daemon, "load", input=saved)
    assert run(daemon, "built", "sh", "-c", script) == "one\ntwo\n2750\nDockerfile\n"


def layers_of(saved: bytes) -> list[list[str]]:
    """The names in each layer of a saved image."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        for layer in json.load(content)[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as tar:
                found.append(tar.getnames())
    return found


def test_what_a_running_container_writes_is_seen(daemon: Daemon, tmp_path: Path) -> None:
    words = ["run", "-d", "--name", "busy", "--network", "none", "busybox", "sleep", "1000"]
    lading(daemon, *words)
    lading(daemon, "exec", "busy", "sh", "-c", "echo text > /written; rm /bin/yes")
    (tmp_path / "given").write_text("given")
    lading(daemon, "cp", str(tmp_path / "given"), "busy:/etc/given")
    assert lading(daemon, "exec", "busy", "cat", "/etc/given") == "given"
    assert {"A /written", "D /bin/yes"} <= set(lading(daemon, "diff", "busy").splitlines())
    place = Path(lading(daemon, "mount", "busy").strip())
    assert (place / "written").read_text() == "text\n"
    lading(daemon, "exec", "busy", "sh", "-c", "echo more >> /written")
    assert (place / "written").read_text() == "text\nmore\n"
    lading(daemon, "unmount", "busy")
    lading(daemon, "commit", "busy", "seen")
    assert run(daemon, "seen", "cat", "/written") == "text\nmore\n"
    lading(daemon, "restart", "-t", "0", "busy")
    assert lading(daemon, "exec", "busy", "cat", "/written") == "text\nmore\n"
    lading(daemon, "rm", "-f", "busy")


def test_containers_start_side_by_side(daemon: Daemon) -> None:
    names = [f"many{number}" for number in range(8)]
    for name in names:
        lading(
            daemon, "create", "--name", name, "--network", "none", "busybox", "cat", "/etc/group"
        )
    lading(daemon, "start", *names)
    assert set(lading(daemon, "wait", *names).split()) == {"0"}
    lading(daemon, "rm", *names)


def test_doctor_tells_of_it(daemon: Daemon) -> None:
    done = daemon.client("lading", "doctor", check=False).stdout.decode()
    (row,) = [line for line in done.splitlines() if line.split()[1:2] == ["aufs"]]
    assert "[ok]" in row
    assert "default" in row
