"""SOURCE_DATE_EPOCH: the same bits from another daemon, on another filesystem, at another time."""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon
from lading.testing.volumes import loop_volume

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox AS made
RUN mkdir -p /out/sub && echo made > /out/sub/f && ln -s sub /out/link && chmod 2755 /out/sub
RUN chown 5:6 /out/sub/f && ln /out/sub/f /out/hard && mkfifo /out/fifo
RUN rm /etc/group && mkdir /x && touch /x/gone
RUN rm -r /x && mkdir /x && echo again > /x/new && mv /var /var2
FROM busybox
ENV A=b
COPY --from=made /out /out
COPY tree /tree
ADD in.tar /in/
WORKDIR /w/v
RUN cat /tree/f > /both; date > /dev/null; touch -t 200101010000.00 /old; stat -c %Y /tree/f > /when
LABEL x=y
CMD ["sh"]
"""


def context(place: Path) -> None:
    place.mkdir()
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / "tree").mkdir()
    for name in ("f", "b", "a"):
        (place / "tree" / name).write_text(name)
    os.symlink("f", place / "tree/link")
    moment = time.time() - 3600
    with tarfile.open(place / "in.tar", "w") as archive:
        for name in ("z", "y"):
            entry = tarfile.TarInfo(name)
            entry.mtime = 1_000_000_000
            archive.addfile(entry)
    for path in place.rglob("*"):
        moment += 1
        os.utime(path, (moment, moment), follow_symlinks=False)


def built(base: bytes, root: Path, backend: str, source: Path) -> str:
    """The image's id and layers, and the digest of its archive, manifest and all."""
    with Daemon("--storage-driver", backend, root=root) as daemon:
        daemon.client("lading", "load", input=base)
        found = []
        for flags in ([], ["--no-cache"]):
            daemon.client(
                "lading", "build", *flags, "--build-arg", "SOURCE_DATE_EPOCH=1400000000",
                "-t", "dated", str(source),
            )  # fmt: skip
            shown = daemon.client(
                "lading", "inspect", "-f", "{{.Id}} {{json .RootFS.Layers}}", "dated"
            )
            found.append(shown.stdout.decode())
            time.sleep(1.1)
        assert found[0] == found[1]
        saved = daemon.client("lading", "save", "dated").stdout
        return f"{found[0]} {hashlib.sha256(saved).hexdigest()}"


def test_every_backend_makes_the_same_bits(daemon: Daemon, tmp_path: Path) -> None:
    base = daemon.client("lading", "save", "busybox").stdout
    found = {}
    for backend in ("overlay", "vfs", "btrfs"):
        source, root = tmp_path / f"c-{backend}", tmp_path / backend
        context(source)
        root.mkdir()
        with loop_volume("btrfs", root) if backend == "btrfs" else nullcontext(root) as place:
            found[backend] = built(base, place, backend, source)
    assert len(set(found.values())) == 1, found
