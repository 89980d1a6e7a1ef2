"""The image that workloads run on, made anew for each run so that no layer is known already."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each workload does. ``files`` of 4 KiB, ``large`` in bytes."""

    files: int
    large: int
    writes: int

    @classmethod
    def scaled(cls, scale: float) -> Sizes:
        """The usual sizes times ``scale``."""
        return cls(
            max(10, round(2000 * scale)),
            max(FILE_BYTES, round((64 << 20) * scale)),
            max(10, round(50_000 * scale)),
        )


def write_archive(
    sink: BinaryIO, name: str, sizes: Sizes, busybox: Path, labels: Mapping[str, str], seed: str
) -> None:
    """Write an image of three layers as ``docker save`` does: tools, many small files, a large one.

    ``seed`` makes the content; another seed, another chain of layers. Content is random: what
    compresses or deduplicates would flatter some backends.
    """
    layers = [_tools(busybox, seed), _tree(sizes, seed), _large(sizes, seed)]
    ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin"], "Labels": dict(labels)},
        "rootfs": {"type": "layers", "diff_ids": ids},
    }
    files = [f"{n}/layer.tar" for n in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": files}]
    with tarfile.open(fileobj=sink, mode="w") as tar:
        _add(tar, "config.json", json.dumps(config).encode())
        for path, layer in zip(files, layers, strict=True):
            _add(tar, path, layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _architecture() -> str:
    import platform

    known = {"x86_64": "amd64", "aarch64": "arm64"}
    return known.get(platform.machine(), platform.machine())


def _tools(busybox: Path, seed: str) -> bytes:
    applets = subprocess.run([busybox, "--list"], capture_output=True, check=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "data", "dev", "etc", "proc", "sys", "tmp"):
            _add(tar, folder, b"", kind=tarfile.DIRTYPE, mode=0o755)
        _add(tar, "seed", seed.encode())
        _add(tar, "bin/busybox", busybox.read_bytes(), mode=0o755)
        for applet in applets.stdout.decode().split():
            if applet != "busybox":
                _add(tar, f"bin/{applet}", b"", kind=tarfile.SYMTYPE, link="busybox")
    return out.getvalue()


def _tree(sizes: Sizes, seed: str) -> bytes:
    content = random.Random(f"tree {seed}")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add(tar, "data/tree", b"", kind=tarfile.DIRTYPE, mode=0o755)
        for folder in range((sizes.files + 99) // 100):
            _add(tar, f"data/tree/{folder}", b"", kind=tarfile.DIRTYPE, mode=0o755)
        for n in range(sizes.files):
            _add(tar, f"data/tree/{n // 100}/{n}", content.randbytes(FILE_BYTES))
    return out.getvalue()


def _large(sizes: Sizes, seed: str) -> bytes:
    content = random.Random(f"large {seed}")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add(tar, "data/large", content.randbytes(sizes.large))
    return out.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    content: bytes,
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    entry.mtime = 1_400_000_000
    tar.addfile(entry, io.BytesIO(content))
