"""What ADD takes from elsewhere: URLs, git repositories, and the archives of the context."""

from __future__ import annotations

import email.utils
import hashlib
import os
import posixpath
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lading import git
from lading.archive import Archives, Root, compression, headers
from lading.build import context
from lading.build.instruction import Copying
from lading.build.sources import Sources, escaped
from lading.errors import Invalid, LadingError
from lading.hooks.common import Mount
from lading.linux import paths

#: Where the context and the fetched things stand when an ADD has both.
_CONTEXT = "context"


def is_remote(source: str) -> bool:
    """Whether a source is not in the context."""
    return source.startswith(("http://", "https://")) or git.is_repository(source)


class Fetching:
    """Puts the sources of one ADD in place, below an empty directory."""

    def __init__(self, archives: Archives, directory: Path, place: Path) -> None:
        self._archives, self._directory, self._place = archives, directory, place

    def located(self, work: Copying, stack: ExitStack) -> tuple[Copying, Sequence[Mount]]:
        """What is to be copied then, and where that can be seen. Raises Invalid, Unavailable."""
        sources: list[str] = []
        unpacked: list[str] = []
        remote = [source for source in work.sources if is_remote(source)]
        if work.checksum and (len(remote) != 1 or len(work.sources) + len(work.files) > 1):
            raise Invalid("--checksum is for one remote source")
        for number, source in enumerate(work.sources):
            if git.is_repository(source):
                sources.append(self._repository(work, source, number))
                continue
            above, default = self._place, False
            if source in remote:
                names = [self._downloaded(work, source, number)]
            else:
                above, default, names = self._directory, True, self._names(work, source)
            for name in names:
                unpack = default if work.unpack is None else work.unpack
                if unpack and self._is_archive(above, name):
                    unpacked.append(self._unpacked(above, name, number, stack))
                    sources.append(unpacked[-1])
                elif above == self._place:
                    sources.append(escaped(name))
                else:
                    sources.append(f"{_CONTEXT}/{escaped(name)}")
        special = bool(remote or unpacked)
        if not special:
            return work, context.recipe(self._directory)
        (self._place / _CONTEXT).mkdir()
        inner = Mount("bind", str(self._directory), ("rbind",), _CONTEXT)
        dest = work.dest
        if all(source.endswith("/") for source in sources):
            # Archives and repositories are put into it, whatever its name looks like.
            dest = dest.rstrip("/") + "/"
        chosen = replace(
            work, sources=tuple(sources), dest=dest, unpacked=tuple(unpacked),
            keep=bool(unpacked) and not work.owner,
        )  # fmt: skip
        return chosen, [*context.recipe(self._place), inner]

    def _names(self, work: Copying, source: str) -> list[str]:
        """The paths in the context that a source names."""
        with paths.opened_root(self._directory) as root:
            sources = Sources(os.fsencode(self._directory), root, work.exclude)
            return [os.fsdecode(path) for path in sources.matching(source)]

    def _repository(self, work: Copying, source: str, number: int) -> str:
        own = self._place / str(number)
        own.mkdir()
        found = git.checkout(source, own, keep_git=work.keep_git)
        if work.checksum and not found.commit.startswith(work.checksum.lower()):
            raise Invalid(
                f"expected checksum to match {work.checksum}, the commit of {source} is "
                f"{found.commit}"
            )
        return f"{escaped(str(found.directory.relative_to(self._place.resolve())))}/"

    def _downloaded(self, work: Copying, source: str, number: int) -> str:
        own = self._place / str(number)
        own.mkdir()
        name = unquote(posixpath.basename(urlsplit(source).path))
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            if work.dest.endswith("/"):
                raise Invalid(f"cannot determine filename from url: {source}")
            name = "file"
        _download(source, own / name, work.checksum)
        return f"{number}/{name}"

    def _unpacked(self, above: Path, name: str, number: int, stack: ExitStack) -> str:
        into = self._place / f"{number}-{len(os.listdir(self._place))}"
        into.mkdir()
        with paths.opened_root(above) as root:
            source = paths.open_in_root(root, name, os.O_RDONLY)
        stack.callback(os.close, source)
        self._archives.copy_in(Root(context.recipe(into)), "/", source)
        return f"{into.name}/"

    def _is_archive(self, above: Path, name: str) -> bool:
        """Whether a file is a tar, compressed or not."""
        try:
            with paths.opened_root(above) as root:
                source = paths.open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            stream, _ = compression.opened(compression.Descriptor(source))
            first = b""
            while len(first) < headers.BLOCK and (piece := stream.read(headers.BLOCK - len(first))):
                first += piece
            return context.is_tar(first)
        except (LadingError, OSError):
            return False
        finally:
            os.close(source)


def _download(url: str, path: Path, checksum: str) -> None:
    if checksum and not re.fullmatch(r"sha256:[0-9a-f]{64}", checksum):
        raise Invalid(f"invalid checksum '{checksum}' (sha256: and 64 hexadecimal digits)")
    digest = hashlib.sha256()
    with context.open_url(url) as response, open(path, "xb") as file:
        while piece := response.read(context.CHUNK):
            digest.update(piece)
            file.write(piece)
        modified = response.headers.get("Last-Modified", "")
    if checksum and checksum != f"sha256:{digest.hexdigest()}":
        raise Invalid(f"digest mismatch sha256:{digest.hexdigest()} of {url}, expected {checksum}")
    path.chmod(0o600)
    try:
        moment = int(email.utils.parsedate_to_datetime(modified).timestamp())
    except (ValueError, OverflowError):
        moment = 0
    os.utime(path, (moment, moment))
