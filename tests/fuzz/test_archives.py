"""Archives of any kind to ``load``, ``import`` and ``cp``: used or refused, never half."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .conftest import Target
from .shapes import junk, quick, words

pytestmark = pytest.mark.root

#: Names that try to leave, and such that mean something in a layer.
NAMES = st.sampled_from(
    ["a", "a/b", "../x", "/abs", "a/../../x", ".", "", "./a", ".wh.a", ".wh..wh..opq", "a/.wh.b"]
) | st.text("a/.b", min_size=1, max_size=8)
KINDS = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
)
ENTRIES = st.lists(
    st.tuples(NAMES, st.sampled_from(KINDS), NAMES, st.binary(max_size=20), st.integers(0, 0o7777)),
    max_size=8,
)


def archive(entries: list[tuple[str, bytes, str, bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, content, mode in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, mode
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            entry.devmajor, entry.devminor = 1, 3
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def blobs(target: Target) -> set[str]:
    return {path.name for path in (target.daemon.root / "data/blobs/sha256").iterdir()}


def debris(target: Target) -> list[str]:
    """What an archive may not leave, used or not."""
    data = target.daemon.root / "data"
    return [str(path) for place in ("ingest", "tmp") for path in (data / place).iterdir()]


def outside(target: Target) -> list[str]:
    """What has got out of a root into the directories above it."""
    top = target.daemon.root
    places: tuple[str | Path, ...] = ("/", top, top / "data", *top.glob("data/filesystem/*"))
    places += (*top.glob("data/filesystem/*/snapshots"), *top.glob("data/filesystem/*/snapshots/*"))
    names = [Path(place, name) for place in places for name in ("x", "abs")]
    return [str(path) for path in names if path.exists()]


def send(target: Target, path: str, data: bytes, **query: Any) -> list[dict[str, Any]]:
    """POST an archive; the JSON messages of the answer."""
    status, answer = target.call("POST", path, None, data, **query)
    if isinstance(answer, dict):
        return [answer]
    text = answer.decode() if isinstance(answer, bytes) else ""
    assert status < 300
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@quick(60)
@given(ENTRIES)
@example([("a", tarfile.SYMTYPE, "", b"", 0)])  # the kernel's ENOENT was an error of ours
@example([("a", tarfile.SYMTYPE, "a", b"", 0), ("a/b", tarfile.REGTYPE, "", b"", 0)])
@example([("d", tarfile.DIRTYPE, "", b"", 0), ("a", tarfile.LNKTYPE, "d", b"", 0)])
@example([("../x", tarfile.REGTYPE, "", b"", 0)])  # the blob of what was refused stayed
def test_any_layer_is_imported_or_refused(
    target: Target, entries: list[tuple[str, bytes, str, bytes, int]]
) -> None:
    before = blobs(target)
    send(target, "/images/create", archive(entries), fromSrc="-", repo="fuzzed")
    status, _ = target.call("DELETE", "/images/fuzzed", force=1)
    if status == 404:
        assert blobs(target) <= before
    assert debris(target) == []
    assert outside(target) == []


@quick(60)
@given(ENTRIES)
def test_any_archive_is_copied_in_or_refused(
    target: Target, entries: list[tuple[str, bytes, str, bytes, int]]
) -> None:
    _, made = target.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    target.call("PUT", f"/containers/{made['Id']}/archive", None, archive(entries), path="/tmp")
    target.call("GET", f"/containers/{made['Id']}/changes")
    target.call("DELETE", f"/containers/{made['Id']}")
    assert outside(target) == []


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


LAYER = archive([("f", tarfile.REGTYPE, "", b"x", 0o644)])
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": ["true"]},
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(LAYER)}"]},
    "history": [{"created_by": "x"}],
}


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """The document with one member, somewhere, replaced or left out."""
    if draw(st.integers(0, 3)) == 0:
        return draw(junk | words)
    if isinstance(document, dict) and document:
        name = draw(st.sampled_from(sorted(document)))
        if draw(st.integers(0, 3)) == 0:
            return {key: value for key, value in document.items() if key != name}
        return {**document, name: draw(damaged(document[name]))}
    if isinstance(document, list) and document:
        return [draw(damaged(document[0])), *document[1:]]
    return draw(junk)


MANIFEST = [{"Config": "config.json", "RepoTags": ["fuzzed:latest"], "Layers": ["l/layer.tar"]}]
OCI_INDEX = {
    "schemaVersion": 2,
    "manifests": [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:0",
            "size": 1,
            "annotations": {"org.opencontainers.image.ref.name": "fuzzed:latest"},
        }
    ],
}


@quick(100)
@given(damaged(MANIFEST) | st.just(MANIFEST), damaged(CONFIG) | st.just(CONFIG), st.booleans())
def test_any_saved_image_is_loaded_or_refused(
    target: Target, manifest: Any, config: Any, short: bool
) -> None:
    before = blobs(target)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (
            ("config.json", json.dumps(config).encode()),
            ("l/layer.tar", LAYER),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    data = out.getvalue()
    send(target, "/images/load", data[:-1500] if short else data)
    for row in target.call("GET", "/images/json")[1]:
        if "busybox:latest" not in row["RepoTags"]:
            target.call("GET", f"/images/{row['Id']}/json")
            target.call("DELETE", f"/images/{row['Id']}", force=1)
    assert debris(target) == []
    assert blobs(target) <= before


@quick(60)
@given(damaged(OCI_INDEX), damaged(CONFIG) | st.just(CONFIG), st.booleans())
def test_any_oci_layout_is_loaded_or_refused(
    target: Target, index: Any, config: Any, damage: bool
) -> None:
    before = blobs(target)
    settings = json.dumps(config).encode()
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{digest(settings)}",
            "size": len(settings),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": f"sha256:{digest(LAYER)}",
                "size": len(LAYER),
            }
        ],
    }
    text = json.dumps(manifest).encode()
    found = index if damage else OCI_INDEX
    if not damage:
        found = json.loads(json.dumps(found))
        found["manifests"][0] |= {"digest": f"sha256:{digest(text)}", "size": len(text)}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(found).encode(),
        **{f"blobs/sha256/{digest(blob)}": blob for blob in (settings, text, LAYER)},
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    send(target, "/images/load", out.getvalue())
    for row in target.call("GET", "/images/json")[1]:
        if "busybox:latest" not in row["RepoTags"]:
            target.call("DELETE", f"/images/{row['Id']}", force=1)
    assert debris(target) == []
    assert blobs(target) <= before
