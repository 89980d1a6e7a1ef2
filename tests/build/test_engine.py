"""What stands behind builds: layers, cache, parallel stages, what a crash leaves."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


def build(
    daemon: Daemon, place: Path, files: Mapping[str, str], *flags: str, check: bool = True
) -> str:
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    done = daemon.client("lading", "build", *flags, str(place), check=False)
    out = (done.stdout + done.stderr).decode()
    assert not check or done.returncode == 0, out
    return out


def layers(daemon: Daemon, image: str) -> list[list[str]]:
    """The names in each layer of an image, as ``save`` writes them."""
    data = daemon.client("lading", "save", image).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        found = []
        for name in json.load(manifest)[0]["Layers"]:
            blob = archive.extractfile(name)
            assert blob is not None
            with tarfile.open(fileobj=blob) as layer:
                found.append([entry.name for entry in layer])
    return found


def test_what_the_engine_mounts_on_is_in_no_layer(daemon: Daemon, tmp_path: Path) -> None:
    """Neither where a command has run before, nor in what is copied from such a stage."""
    files = {
        "Dockerfile": "FROM busybox AS a\nRUN echo 1 > /one\nCOPY hosts /etc/hosts\n"
        "COPY hosts /proc/x\nRUN cat /one > /two\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=a /two /three\n",
        "hosts": "H\n",
    }
    build(daemon, tmp_path, files, "-t", "clean")
    first, second = layers(daemon, "clean")
    base = {name for layer in layers(daemon, "busybox") for name in layer}
    assert {n.strip("/") for n in first} - {n.strip("/") for n in base} == {
        "one", "two", "etc/hosts", "proc", "proc/x"
    }  # fmt: skip
    assert second == ["three"]
    daemon.client("lading", "rmi", "clean")


def test_a_layer_on_top_of_a_command_is_seen_by_the_next(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM busybox\nRUN mkdir /real && ln -s real /link && echo 1 > /real/gone\n"
        "COPY f /link/\nCOPY f /link/g\nRUN rm /real/gone && ls /real > /seen\n",
        "f": "F\n",
    }
    build(daemon, tmp_path, files, "-t", "stacked")
    shown = daemon.client("lading", "run", "--rm", "stacked", "cat", "/seen").stdout
    assert shown == b"f\ng\n"
    top = [name.rstrip("/") for name in layers(daemon, "stacked")[-1]]
    assert top == ["real", "real/.wh.gone", "seen"]
    daemon.client("lading", "rmi", "stacked")


def test_a_stage_that_comes_out_the_same_keeps_the_cache(daemon: Daemon, tmp_path: Path) -> None:
    """COPY --from goes by content where the stage was built anew."""
    files = {
        "Dockerfile": "FROM busybox AS a\nCOPY f /f\nRUN wc -c < /f > /size\n"
        "FROM busybox\nCOPY --from=a /size /size\nRUN echo sa''id\n",
        "f": "one",
    }
    assert "said\n" in build(daemon, tmp_path, files)
    assert "said\n" not in build(daemon, tmp_path, {"f": "two"})
    assert "said\n" in build(daemon, tmp_path, {"f": "three"})
