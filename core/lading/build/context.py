"""Build contexts: an archive, a text or a repository, as a directory of the build's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

from lading.archive import Archives, Root
from lading.build.sources import Digests
from lading.errors import Invalid, Unavailable
from lading.hooks.common import Mount
from lading.linux import paths
from lading.model.dockerignore import Ignore

FETCH_SECONDS = 60
CHUNK = 1 << 20


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
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
        found = archives.unpack_hashed(Root(recipe(directory)), out)
    finally:
        os.close(out)
        feeder.join()
    if failure:
        raise failure[0]
    return Digests(found)


def fetch(remote: str, directory: Path, archives: Archives, name: str) -> Digests:
    """A context from a URL: a repository, an archive, or a text that is the Dockerfile."""
    if remote.endswith(".git") or ".git#" in remote or remote.startswith(("git://", "git@")):
        _clone(remote, directory)
        return Digests()
    with open_url(remote) as response:
        if "text/plain" in response.headers.get("Content-Type", ""):
            (directory / name).write_bytes(response.read())
            return Digests()
        return spool(response, directory, archives)


def open_url(url: str) -> urllib.request.addinfourl:  # type: ignore[name-defined]
    """A response, not read yet. Raises Invalid, Unavailable."""
    if not url.startswith(("http://", "https://")):
        raise Invalid(f'"{url}": neither an http(s) URL nor a git repository')
    try:
        return urllib.request.urlopen(url, timeout=FETCH_SECONDS)
    except (urllib.error.URLError, OSError) as error:
        raise Unavailable(f'fetch "{url}": {getattr(error, "reason", error)}') from error


def _clone(remote: str, directory: Path) -> None:
    if shutil.which("git") is None:
        raise Unavailable(f'clone "{remote}": this host has no git', hint="install git")
    url, _, fragment = remote.partition("#")
    branch, _, below = fragment.partition(":")
    if url.startswith("-") or branch.startswith("-"):
        raise Invalid(f'invalid git repository "{remote}"')
    command = ["git", "clone", "--quiet", "--depth=1"]
    if branch:
        command += ["--branch", branch]
    whole = directory / ".clone"
    done = subprocess.run(
        [*command, "--", url, str(whole)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={"PATH": os.defpath, "GIT_TERMINAL_PROMPT": "0", "HOME": "/nonexistent"},
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(f'clone "{remote}": {done.stderr.strip()}')
    with paths.opened_root(whole) as root:
        above = paths.open_in_root(root, below or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(above):
                os.rename(name, directory / name, src_dir_fd=above)
        finally:
            os.close(above)
    shutil.rmtree(whole)


def drop_ignored(directory: Path, dockerfile: str) -> None:
    """Remove what was sent only to be read: an ignored ``.dockerignore`` and Dockerfile.

    Clients send both in any case. Raises Invalid for a pattern that is none.
    """
    with paths.opened_root(directory) as root:
        try:
            lines = paths.read_file(root, ".dockerignore").decode(errors="replace").splitlines()
        except OSError:
            return
        ignore = Ignore(lines)
        for name in (".dockerignore", dockerfile or "Dockerfile"):
            if ignore.matches(os.path.normpath(name)) and paths.exists(root, name):
                above, last = paths.open_parent(root, name)
                try:
                    os.unlink(last, dir_fd=above)
                finally:
                    os.close(above)


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
