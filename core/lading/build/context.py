"""Build contexts: an archive, a text or a repository, as a directory of the build's own."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import stat
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError

from lading import git
from lading.archive import Archives, compression, headers, pack
from lading.build.sources import Digests
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
    name = os.path.normpath(dockerfile or "Dockerfile")
    with paths.opened_root(directory) as root:
        for candidate in (f"{name}.dockerignore", ".dockerignore"):
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
