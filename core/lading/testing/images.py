"""Small images, made in memory, for tests of what moves images."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence

from lading.hooks.registry import OutgoingImage, OutgoingLayer, Stream
from lading.model import oci

Files = Mapping[str, bytes]


def made_layer(files: Files) -> bytes:
    """A layer with these files, as tar; always the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), 1_400_000_000, 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def unpacked(layer: bytes) -> Files:
    """The files of a layer, compressed or not."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = {}
        for entry in tar:
            content = tar.extractfile(entry)
            found[entry.name] = content.read() if content else b""
    return found


def made_config(diff_ids: Sequence[str], *, empty_lines: int = 0) -> bytes:
    """An image config whose history has a line for each layer and some without."""
    created = "2024-05-06T07:08:09Z"
    history: list[dict[str, object]] = [
        {"created": created, "created_by": f"ADD layer {n}"} for n in range(len(diff_ids))
    ]
    for number in range(empty_lines):
        line = {"created": created, "created_by": f"ENV N={number}", "empty_layer": True}
        history.insert(2 * number, line)
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["/run"], "Env": ["PATH=/bin", "NAME=ä"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": history,
    }
    return json.dumps(document).encode()


def made_image(
    layers: Sequence[Files],
    *,
    empty_lines: int = 0,
    compressed: bool = True,
    announced: bool = True,
) -> OutgoingImage:
    """An image ready to be pushed; ``announced``: the digests of its layers are known before."""
    tars = [made_layer(files) for files in layers]
    config = made_config([oci.digest_of(tar) for tar in tars], empty_lines=empty_lines)
    outgoing = [_outgoing(tar, compressed=compressed, announced=announced) for tar in tars]
    return OutgoingImage(oci.digest_of(config), config, outgoing)


def _outgoing(tar: bytes, *, compressed: bool, announced: bool) -> OutgoingLayer:
    content = gzip.compress(tar, mtime=0) if compressed else tar
    kind = oci.LAYER_GZIP if compressed else oci.LAYER
    digest, size = oci.digest_of(content), len(content)
    shown = (digest, size) if announced else ("", -1)

    def opened() -> Stream:
        return io.BytesIO(content)

    return OutgoingLayer(oci.digest_of(tar), *shown, kind, opened, lambda: (digest, size))
