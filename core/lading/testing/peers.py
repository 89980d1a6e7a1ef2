"""Images that other engines build of the same Dockerfile, read in a way that can be compared."""

from __future__ import annotations

import hashlib
import io
import json
import re
import resource
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: Kind, mode, owner, group, target, digest and extended attributes.
Node = tuple[Any, ...]
Layer = Mapping[str, Node]

#: What the content decides in a line of history; and the way that Go prints a structure. Dockerds
#: since 23 forget the space between an owner and what is copied.
_CHANGING = re.compile(r" ?(file:|dir:|multi:)[0-9a-f]{64}|(HEALTHCHECK ).*")
_TIMEOUT = 300.0

#: Layers by diff ID: a big base, which all engines share, is read once.
_layers: dict[str, Layer] = {}


class Image:
    """The one image of an archive that ``save`` has written."""

    def __init__(self, archive: bytes | Path) -> None:
        file = archive.open("rb") if isinstance(archive, Path) else io.BytesIO(archive)
        with file, tarfile.open(fileobj=file) as tar:
            (entry,) = json.loads(_read(tar, "manifest.json"))
            self.document: dict[str, Any] = json.loads(_read(tar, entry["Config"]))
            self.diff_ids: list[str] = self.document["rootfs"]["diff_ids"]
            for diff_id, name in zip(self.diff_ids, entry["Layers"], strict=True):
                if diff_id not in _layers:
                    _layers[diff_id] = _nodes(_read(tar, name))
            self.layers = [_layers[diff_id] for diff_id in self.diff_ids]

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
            for name, node in layer.items():
                if name.rpartition("/")[2].startswith(".wh."):
                    continue
                if node[0] != tarfile.DIRTYPE and found.get(name, node)[0] == tarfile.DIRTYPE:
                    for path in [p for p in found if p.startswith(name + "/")]:
                        del found[path]
                found[name] = node
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


def _nodes(layer: bytes) -> Layer:
    found: dict[str, Node] = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for entry in tar:
            name = entry.name.removeprefix("./").strip("/")
            if name in ("", "."):
                continue
            if entry.islnk():
                found[name] = found[entry.linkname.removeprefix("./").strip("/")]
                continue
            content = _read(tar, entry.name) if entry.isreg() else b""
            attributes = {
                k: v for k, v in entry.pax_headers.items() if k.startswith("SCHILY.xattr.")
            }
            device = (entry.devmajor, entry.devminor) if entry.isdev() else ()
            mode = 0 if entry.issym() else entry.mode & 0o7777
            kind = b"0" if entry.isreg() else entry.type
            found[name] = (
                kind, mode, entry.uid, entry.gid, entry.linkname or device,
                hashlib.sha256(content).hexdigest() if content else "", tuple(attributes.items()),
            )  # fmt: skip
    return found


def differences(ours: Layer, theirs: Layer) -> str:
    """One line for each path that is not the same."""
    return "\n".join(
        f"{path}: {ours.get(path)} where theirs is {theirs.get(path)}"
        for path in sorted({*ours, *theirs})
        if ours.get(path) != theirs.get(path)
    )


def built_by_dockerd(docker: Callable[..., str], place: Path, tag: str, *words: str) -> Image:
    """``docker build WORDS`` by a real dockerd; ``docker`` is what ``real_dockerd`` gives."""
    docker("build", "-t", tag, *words)
    saved = place / "saved-by-dockerd.tar"
    docker("save", "-o", str(saved), tag)
    return Image(saved)


class Buildah:
    """buildah on a storage of its own below ``place``.

    A tmpfs that a RUN mounts on a directory that is there makes its 1.28 delete the whole root.
    """

    def __init__(self, place: Path, storage: str = "--storage-driver=vfs") -> None:
        self.place = place
        self._storage = [f"--root={place}/b", f"--runroot={place}/r", storage]

    def __call__(self, *words: str) -> str:
        """Run it; raises AssertionError with its output."""
        done = subprocess.run(
            ["buildah", *self._storage, *words],
            capture_output=True, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
        text = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{words}: {text}"
        return text

    def build(self, tag: str, *words: str) -> Image:
        """``buildah bud WORDS``."""
        self(
            "bud", "--format=docker", "--isolation=chroot", "--pull-never",
            "--identity-label=false", *_limits(), "-t", tag, *words,
        )  # fmt: skip
        saved = self.place / "saved-by-buildah.tar"
        saved.unlink(missing_ok=True)
        self("push", tag, f"docker-archive:{saved}:{tag}")
        return Image(saved)


def _limits() -> list[str]:
    """Its own limits for buildah's commands: by default it raises them, which not all hosts let.

    It starts with lowering its number of processes to the kernel's highest process ID.
    """
    highest = int(Path("/proc/sys/kernel/pid_max").read_text())
    limits = {"nofile": resource.getrlimit(resource.RLIMIT_NOFILE)}
    soft, hard = (
        highest if limit == resource.RLIM_INFINITY else min(limit, highest)
        for limit in resource.getrlimit(resource.RLIMIT_NPROC)
    )
    limits["nproc"] = (soft, hard)
    return [f"--ulimit={name}={soft}:{hard}" for name, (soft, hard) in limits.items()]
