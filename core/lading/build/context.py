"""Build contexts: an archive, a text or a repository, as a directory of the build's own."""

from __future__ import annotations

import fcntl
import functools
import http.client
import io
import os
import shutil
import stat
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError

from lading import git
from lading.archive import Archives, compression, headers, pack
from lading.build import plain
from lading.build.plain import Plain, PlainSources
from lading.build.sources import Digests, Sources
from lading.errors import Invalid, Unavailable
from lading.hooks.common import Mount
from lading.linux import paths
from lading.model.dockerfile import LARGEST
from lading.model.dockerignore import Ignore

FETCH_SECONDS = 60
CHUNK = 1 << 20


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


def recipe(directory: Path) -> tuple[Mount, ...]:
    """A directory of the host as a root."""
    return (Mount("bind", str(directory), ("rbind",)),)


class Context:
    """The files of one build, below the empty directory ``place``; thread safe.

    A small, plain one is unpacked only when somebody asks for its ``directory``.
    """

    def __init__(self, place: Path, archives: Archives) -> None:
        self.place = place
        self.digests = Digests()
        self._archives = archives
        self._lock = threading.Lock()
        self._held = b""
        self._plain: Plain | None = None

    def receive(self, stream: Readable, dockerfile: str) -> None:
        """Take an archive, compressed or not. Raises Invalid."""
        first = b""
        while len(first) <= plain.LARGEST and (piece := stream.read(plain.LARGEST + 1)):
            first += piece
        if len(first) <= plain.LARGEST:
            try:
                found = Plain(first)
            except plain.Special:
                found = None
            if found is not None and not any(
                found.has(name.encode(errors="surrogateescape")) for name in _ignores(dockerfile)
            ):
                self._held, self._plain, self.digests = first, found, found.digests
                return
        rest = compression.Pushback(first, stream)
        self.digests = spool(rest, self.place, self._archives)

    def fetch(self, remote: str, dockerfile: str) -> None:
        """Take what is at a URL."""
        self.digests = fetch(remote, self.place, self._archives, dockerfile or "Dockerfile")

    @property
    def directory(self) -> Path:
        """Where all of it is."""
        with self._lock:
            if self._held:
                spool(io.BytesIO(self._held), self.place, self._archives)
                self._held = b""
        return self.place

    @contextmanager
    def sources(self, exclude: Sequence[str]) -> Iterator[Sources]:
        """What selects in it, for the digest."""
        if self._plain is not None:
            yield PlainSources(self._plain, exclude)
            return
        with paths.opened_root(self.place) as root:
            yield Sources(os.fsencode(self.place), root, exclude)

    def begin(self, name: str, limit: int) -> bytes:
        """The Dockerfile, at most a byte more than the limit; what is ignored goes then.

        Raises Invalid.
        """
        if self._plain is not None:
            path = os.fsencode(os.path.normpath(name or "Dockerfile"))
            if (found := self._plain.contents.get(path)) is not None:
                return found[: limit + 1]
        text = read_dockerfile(self.directory, name, limit)
        drop_ignored(self.place, name)
        return text

    def drop(self) -> None:
        """Remove it; nobody has to wait for that, what a kill leaves goes at the next start."""
        with self._lock:
            self._held = b""
        try:
            # Of one that was only held in memory there is nothing else.
            self.place.rmdir()
            return
        except OSError:
            pass
        away = functools.partial(shutil.rmtree, self.place, ignore_errors=True)
        threading.Thread(target=away, name="build-context", daemon=True).start()


def spool(stream: Readable, directory: Path, archives: Archives) -> Digests:
    """Unpack an archive, compressed or not; nothing of it is held in memory. Raises Invalid.

    The files' digests, which the cache asks for, come of the same pass.
    """
    out, into = os.pipe()
    try:
        # One wake-up for each piece, not sixteen.
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, CHUNK)
    except OSError:
        # /proc/sys/fs/pipe-max-size allows no more: then it is slower.
        pass
    failure: list[Exception] = []

    def feed() -> None:
        try:
            with open(into, "wb", buffering=0) as pipe:
                while piece := stream.read(CHUNK):
                    pipe.write(piece)
        except BrokenPipeError:
            # The task has ended; it tells why.
            return
        except Exception as error:
            failure.append(error)

    feeder = threading.Thread(target=feed, name="build-context", daemon=True)
    feeder.start()
    try:
        found = archives.unpack_hashed(directory, out)
    finally:
        os.close(out)
        feeder.join()
    if failure:
        raise failure[0]
    return Digests(found)


def fetch(remote: str, directory: Path, archives: Archives, name: str) -> Digests:
    """A context from a URL: a repository, an archive, or a text that is the Dockerfile."""
    if git.is_repository(remote):
        _clone(remote, directory)
        return Digests()
    with open_url(remote) as response:
        first = b""
        while len(first) < compression.SNIFF and (
            piece := response.read(compression.SNIFF - len(first))
        ):
            first += piece
        rest = compression.Pushback(first, response)
        plain = "text/plain" in response.headers.get("Content-Type", "")
        if plain or not (compression.sniff(first) or is_tar(first)):
            text = first + response.read(LARGEST)
            (directory / name).write_bytes(text)
            return Digests()
        return spool(rest, directory, archives)


def is_tar(first: bytes) -> bool:
    """Whether a stream that begins so is an uncompressed tar."""
    try:
        return len(first) >= headers.BLOCK and headers.parse(first[: headers.BLOCK]) is not None
    except Invalid:
        return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to where a client may send the daemon, and nowhere else."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """Not to ftp, which urllib would take as well."""
        found = super().redirect_request(*args)
        if found is not None and found.type not in ("http", "https"):
            raise Invalid(f'"{found.full_url}": redirected to what is no http(s) URL')
        return found


def open_url(url: str) -> Any:
    """A response, not read yet. Raises Invalid, Unavailable."""
    if not url.startswith(("http://", "https://")):
        raise Invalid(f'"{url}": neither an http(s) URL nor a git repository')
    try:
        return urllib.request.build_opener(_Redirects).open(url, timeout=FETCH_SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        status = f"HTTP status {error.code}: " if isinstance(error, HTTPError) else ""
        raise Unavailable(f'fetch "{url}": {status}{getattr(error, "reason", error)}') from error


def _clone(remote: str, directory: Path) -> None:
    whole = Path(tempfile.mkdtemp(prefix="context-", dir=directory.parent))
    try:
        found = git.checkout(remote, whole)
        for name in os.listdir(found.directory):
            os.rename(found.directory / name, directory / name)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def drop_ignored(directory: Path, dockerfile: str) -> None:
    """Remove what the context's ``.dockerignore`` names, that file and the Dockerfile included.

    Clients leave such files out themselves, but those two, which they send to be read; archives
    and repositories come with everything. ``DOCKERFILE.dockerignore`` goes before the other.
    Raises Invalid for a pattern that is none.
    """
    with paths.opened_root(directory) as root:
        for candidate in _ignores(dockerfile):
            try:
                text = paths.read_file(root, candidate, LARGEST)
                break
            except OSError:
                continue
        else:
            return
        ignore = Ignore(text.decode(errors="surrogateescape").splitlines())
    top = os.fsencode(directory)
    directories = []
    for relative, status in pack.walk(top):
        if ignore.matches(os.fsdecode(relative)):
            if stat.S_ISDIR(status.st_mode):
                directories.append(relative)
            else:
                os.unlink(top + b"/" + relative)
    for relative in reversed(directories):
        try:
            os.rmdir(top + b"/" + relative)
        except OSError:
            # An exception has kept something in there.
            continue


def _ignores(dockerfile: str) -> tuple[str, str]:
    """The names of files with patterns, the one that goes before the other first."""
    return f"{os.path.normpath(dockerfile or 'Dockerfile')}.dockerignore", ".dockerignore"


def read_dockerfile(directory: Path, name: str, limit: int) -> bytes:
    """The Dockerfile of a context, which a link in there cannot lead out of. Raises Invalid."""
    with paths.opened_root(directory) as root:
        for candidate in [name] if name else ["Dockerfile", "dockerfile"]:
            try:
                return paths.read_file(root, candidate, limit + 1)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Invalid(
                    f"failed to read dockerfile: {candidate}: {error.strerror}"
                ) from error
    raise Invalid(f"Cannot locate specified Dockerfile: {name or 'Dockerfile'}")
