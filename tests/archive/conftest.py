"""Archive tasks on scratch directories, and tars made by hand."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lading.archive import Archives, Root
from lading.hooks.common import Mount
from lading.monitor import Spawner


@pytest.fixture(scope="session")
def archives() -> Iterator[Archives]:
    spawner = Spawner.launch(preload=["lading.archive.tasks"])
    yield Archives(spawner)
    spawner.close()


class Tar:
    """A tar that is put together entry by entry."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._file = tarfile.TarFile(
            fileobj=self._buffer, mode="w", format=format, errors="surrogateescape"
        )

    def add(
        self,
        name: str,
        content: bytes = b"",
        *,
        type: bytes = tarfile.REGTYPE,
        link: str = "",
        mode: int = 0o644,
        device: tuple[int, int] = (0, 0),
        owner: tuple[int, int] = (0, 0),
        mtime: float = 1_000_000_000,
        pax: Mapping[str, str] | None = None,
    ) -> Tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode, entry.mtime = type, link, mode, mtime
        entry.devmajor, entry.devminor = device
        entry.uid, entry.gid = owner
        entry.size = len(content)
        entry.pax_headers = dict(pax or {})
        self._file.addfile(entry, io.BytesIO(content))
        return self

    def directory(self, name: str, mode: int = 0o755) -> Tar:
        return self.add(name, type=tarfile.DIRTYPE, mode=mode)

    def symlink(self, name: str, target: str) -> Tar:
        return self.add(name, type=tarfile.SYMTYPE, link=target)

    def hard_link(self, name: str, target: str) -> Tar:
        return self.add(name, type=tarfile.LNKTYPE, link=target)

    def bytes(self) -> bytes:
        self._file.close()
        return self._buffer.getvalue()


def stream(data: bytes) -> int:
    """A descriptor from which the data can be read."""
    descriptor = os.memfd_create("tar", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def bound(path: Path) -> Root:
    """A root that is a plain directory."""
    return Root((Mount("bind", str(path), ("rbind",)),))


class Target:
    """A directory to unpack into, with a neighbour that must stay as it is."""

    def __init__(self, archives: Archives, root: Path) -> None:
        self.archives = archives
        self.path = root / "target"
        self.path.mkdir()
        self.neighbour = root / "neighbour"
        self.neighbour.mkdir()
        (self.neighbour / "secret").write_text("untouched")

    def apply(self, data: bytes) -> None:
        descriptor = stream(data)
        try:
            self.archives.apply(bound(self.path), descriptor)
        finally:
            os.close(descriptor)

    def intact(self) -> bool:
        """Whether nothing outside has changed."""
        return (
            os.listdir(self.neighbour) == ["secret"]
            and (self.neighbour / "secret").read_text() == "untouched"
        )


@pytest.fixture
def target(archives: Archives, tmp_path: Path) -> Target:
    return Target(archives, tmp_path)


@pytest.fixture
def user_attributes(tmp_path: Path) -> None:
    """Skips where temporary files take no ``user.`` attributes (tmpfs before Linux 6.6)."""
    try:
        os.setxattr(tmp_path, "user.lading", b"")
    except OSError as error:
        pytest.skip(f"temporary files take no extended attributes here: {error.strerror}")
