"""``save`` and ``load``: Docker's and skopeo's archives, old and new, and damaged ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lading.errors import Invalid
from lading.images import Image

from .conftest import Store, archive, tar

pytestmark = pytest.mark.root


def two_layers(store: Store) -> Image:
    base = store.make("base", "a", "d/", "d/f")

    def change(top: Path) -> None:
        (top / "d/f").unlink()
        (top / "new").write_text("new")

    return store.commit(base, change, "app:1", changes=['CMD ["/new"]'])


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_saved_loads_elsewhere(store: Store, spawner: Any, tmp_path: Path) -> None:
    image = two_layers(store)
    data = store.save("app:1")
    other = Store(tmp_path / "other", spawner)
    assert other.load(data) == ["app:1"]
    copy = other.images.get("app:1")
    assert copy.id == image.id
    assert copy.config_bytes == image.config_bytes
    assert other.files(copy) == {"a": "a", "new": "new"}
    assert [la.size for la in copy.layers] == [la.size for la in image.layers]


def test_loading_twice_is_fine(store: Store) -> None:
    two_layers(store)
    data = store.save("app:1")
    before = sorted(store.blobs.walk())
    assert store.load(data) == ["app:1"]
    store.images.collect()
    assert sorted(store.blobs.walk()) == before


def test_saving_a_repository_has_all_its_tags(store: Store) -> None:
    two_layers(store)
    store.images.tag("base", "app:2")
    with tarfile.open(fileobj=io.BytesIO(store.save("app"))) as saved:
        rows = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert sorted(tag for row in rows for tag in row["RepoTags"]) == ["app:1", "app:2"]
        repositories = json.load(saved.extractfile("repositories"))  # type: ignore[arg-type]
        assert sorted(repositories["app"]) == ["1", "2"]


def test_saving_by_id_has_no_tags(store: Store) -> None:
    image = two_layers(store)
    store.load(store.save(image.id))
    with tarfile.open(fileobj=io.BytesIO(store.save(image.id))) as saved:
        rows = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [row["RepoTags"] for row in rows] == [None]


def skopeo(*arguments: object) -> str:
    if not shutil.which("skopeo"):
        pytest.skip("no skopeo on this host")
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_reads_what_was_saved(store: Store, tmp_path: Path) -> None:
    image = two_layers(store)
    (tmp_path / "saved.tar").write_bytes(store.save("app:1"))
    shown = json.loads(skopeo("inspect", f"docker-archive:{tmp_path}/saved.tar"))
    assert len(shown["Layers"]) == 2
    config = skopeo("inspect", "--config", "--raw", f"docker-archive:{tmp_path}/saved.tar:app:1")
    assert json.loads(config) == json.loads(image.config_bytes)
    skopeo("inspect", f"oci-archive:{tmp_path}/saved.tar")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("packing", [[], ["--dest-compress", "--dest-compress-format", "zstd"]])
def test_what_skopeo_writes_loads(
    store: Store, spawner: Any, tmp_path: Path, form: str, packing: list[str]
) -> None:
    if form == "docker-archive" and packing:
        packing = []
    image = two_layers(store)
    (tmp_path / "saved.tar").write_bytes(store.save("app:1"))
    target = f"{form}:{tmp_path}/copy.tar:docker.io/library/copy:1"
    skopeo("copy", *packing, f"docker-archive:{tmp_path}/saved.tar", target)
    other = Store(tmp_path / "other", spawner)
    assert other.load((tmp_path / "copy.tar").read_bytes()) == ["copy:1"]
    copy = other.images.get("copy:1")
    assert [la.diff_id for la in copy.layers] == [la.diff_id for la in image.layers]
    assert other.files(copy) == {"a": "a", "new": "new"}


def test_compressed_archives(store: Store, spawner: Any, tmp_path: Path) -> None:
    two_layers(store)
    other = Store(tmp_path / "other", spawner)
    assert other.load(gzip.compress(store.save("app:1"), 1)) == ["app:1"]


def docker_20_archive(*, link: bool = False, packed: bytes = b"") -> tuple[bytes, str]:
    """What ``docker save`` of 20.10 wrote: a directory per layer, repeated layers as links.

    ``packed`` is in the place of the layer.
    """
    layer = tar("a", "b")
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/a"], "Unknown": 1},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}"] * (1 + link)},
            "history": [{"created_by": "x"}],
        },
        indent=3,
    ).encode()
    name = f"{digest(config)}.json"
    layers = ["1/layer.tar"] + ["2/layer.tar"] * link
    manifest = [{"Config": name, "RepoTags": ["old:1"], "Layers": layers}]
    buffer = io.BytesIO(
        archive({"1/VERSION": b"1.0", "1/layer.tar": packed or layer, name: config})
    )
    with tarfile.open(fileobj=buffer, mode="a") as made:
        if link:
            entry = tarfile.TarInfo("2/layer.tar")
            entry.type, entry.linkname = tarfile.SYMTYPE, "../1/layer.tar"
            made.addfile(entry)
        content = json.dumps(manifest).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(content)
        made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue(), f"sha256:{digest(config)}"


@pytest.mark.parametrize("link", [False, True])
def test_archives_of_docker_20(store: Store, link: bool) -> None:
    data, image_id = docker_20_archive(link=link)
    assert store.load(data) == ["old:1"]
    image = store.images.get("old:1")
    assert image.id == image_id
    assert b'"Unknown": 1' in image.config_bytes
    assert store.files(image) == {"a": "a", "b": "b"}


def test_archives_of_2014(store: Store) -> None:
    base, top = "1" * 64, "2" * 64
    documents = {
        base: {"id": base, "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["x"]}},
        top: {"id": top, "parent": base, "config": {"Cmd": ["/f"]}, "architecture": "amd64"},
    }
    members = {f"{i}/json": json.dumps(d).encode() for i, d in documents.items()}
    members |= {f"{base}/layer.tar": tar("f", "g"), f"{top}/layer.tar": tar(".wh.g", "h")}
    members |= {f"{i}/VERSION": b"1.0" for i in documents}
    members["repositories"] = json.dumps({"ancient": {"v1": top}}).encode()
    assert store.load(archive(members)) == ["ancient:v1"]
    image = store.images.get("ancient:v1")
    assert image.config.config == {"Cmd": ["/f"]}
    assert store.files(image) == {"f": "f", "h": "h"}
    assert len(store.images.history("ancient:v1")) == 2


def test_content_is_compared_with_the_config(store: Store) -> None:
    data, _ = docker_20_archive()
    honest = tar("a", "b")
    assert data.count(honest) == 1
    with pytest.raises(Invalid):
        store.load(data.replace(honest, tar("a", "c")))
    store.images.collect()
    assert store.images.list(all=True) == []
    assert list(store.blobs.walk()) == []


def test_a_compressed_layer_that_lies_takes_no_name(store: Store) -> None:
    kept = store.make("old:1", "f")
    with pytest.raises(Invalid, match="unpacks to"):
        store.load(docker_20_archive(packed=gzip.compress(tar("a", "c")))[0])
    assert [i.id for i in store.images.list(all=True)] == [kept.id]
    assert store.images.get("old:1").id == kept.id
    assert store.load(docker_20_archive(packed=gzip.compress(tar("a", "b")))[0]) == ["old:1"]


@pytest.mark.parametrize("data", [
    b"", b"garbage" * 500, archive({"x": b"y"}), archive({"manifest.json": b"{"}),
    archive({"manifest.json": b"{}"}), archive({"manifest.json": b'[{"Config": "no"}]'}),
    archive({"index.json": b"[]"}), archive({"manifest.json": b'[1]'}),
    archive({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}),
])  # fmt: skip
def test_what_is_no_archive_of_images(store: Store, data: bytes) -> None:
    with pytest.raises(Invalid):
        store.load(data)
    store.images.collect()
    assert list(store.blobs.walk()) == []


def test_a_load_that_is_cut_off_leaves_nothing(store: Store, spawner: Any, tmp_path: Path) -> None:
    two_layers(store)
    data = store.save("app:1")
    other = Store(tmp_path / "other", spawner)
    # Within a block: an archive that merely lacks its trailer is taken.
    for at in range(100, len(data) - 2048, 1536):
        with pytest.raises(Invalid):
            other.load(data[:at])
    other.reopen()
    assert other.images.list(all=True) == []
    assert list(other.blobs.walk()) == []
    assert os.listdir(other.root / "blobs/ingest") == []
