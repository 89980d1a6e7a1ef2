"""The build context: which files are sent, in which form."""

from __future__ import annotations

import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from lading.cli.errors import Failure
from lading.cli.files.pack import CHUNK, END, Packer
from lading.errors import Invalid, LadingError
from lading.git import is_repository
from lading.model.dockerignore import Ignore

IGNORE_FILE = ".dockerignore"
DEFAULT_DOCKERFILE = "Dockerfile"
OWNER = (0, 0)
ARCHIVES = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
TAR_MAGIC_AT = 257


class Context:
    """What a build is sent: ``body`` (None with ``remote``) and the Dockerfile's name in it."""

    def __init__(
        self, body: Iterator[bytes] | None, *, dockerfile: str = "", remote: str = ""
    ) -> None:
        self.body, self.dockerfile, self.remote = body, dockerfile, remote


def make_context(source: str, dockerfile: str, stack: ExitStack) -> Context:
    """The context that ``lading build SOURCE -f DOCKERFILE`` means; raises Failure.

    ``stack`` owns what must live until the build is sent.
    """
    if source == "-":
        if dockerfile == "-":
            raise Failure("invalid argument: can't use stdin for both build context and dockerfile")
        return _from_stdin(dockerfile)
    if is_repository(source):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lading-build-"))
        return _from_directory(_cloned(source, folder), dockerfile)
    if source.startswith(("http://", "https://")):
        return Context(None, dockerfile=dockerfile, remote=source)
    if not os.path.isdir(source):
        raise Failure(f'unable to prepare context: path "{source}" not found')
    return _from_directory(os.path.realpath(source), dockerfile)


def _from_stdin(dockerfile: str) -> Context:
    stdin = sys.stdin.buffer
    head = b""
    while len(head) < 512 and (data := stdin.read(512 - len(head))):
        head += data
    if not head:
        raise Failure("unable to prepare context: stdin is empty")
    is_tar = head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == b"ustar"
    if is_tar or head.startswith(ARCHIVES) or not head.strip(b"\0"):
        return Context(_rest(head, stdin), dockerfile=dockerfile)
    if dockerfile:
        raise Failure("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
    content = head + stdin.read()
    return Context(_single(content), dockerfile=DEFAULT_DOCKERFILE)


def _rest(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield head
    while data := file.read(CHUNK):
        yield data


def _single(content: bytes) -> Iterator[bytes]:
    yield from Packer(owner=OWNER).content(DEFAULT_DOCKERFILE, content, mode=0o600)
    yield END


def _cloned(source: str, folder: str) -> str:
    """Clone a repository; the folder in it that is the context."""
    from lading import git  # late, with subprocess: most contexts are directories

    try:
        # What is on this host its user may read.
        found = git.checkout(source, Path(folder), transports=(*git.REMOTE, "file"))
    except LadingError as error:
        raise Failure(f"unable to prepare context: {error}") from error
    return str(found.directory)


def _from_directory(root: str, dockerfile: str) -> Context:
    if dockerfile == "-":
        return _with_dockerfile(root, sys.stdin.buffer.read(), _patterns("", root))
    path = os.path.join(root, dockerfile or DEFAULT_DOCKERFILE)
    if dockerfile and not os.path.isabs(dockerfile) and not os.path.lexists(path):
        # -f is relative to where the user is; inside the context both spellings are accepted.
        path = os.path.abspath(dockerfile)
    if not dockerfile and not os.path.lexists(path):
        lower = os.path.join(root, DEFAULT_DOCKERFILE.lower())
        path = lower if os.path.lexists(lower) else path
    if dockerfile and os.path.exists(dockerfile):
        path = os.path.abspath(dockerfile)
    resolved = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if not os.path.exists(resolved):
        raise Failure(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
            f"lstat {path}: no such file or directory"
        )
    if not resolved.startswith(f"{root}/"):
        with open(resolved, "rb") as file:
            return _with_dockerfile(root, file.read(), _patterns(f"{resolved}.dockerignore", root))
    inside = os.path.relpath(resolved, root)
    own = f"{inside}.dockerignore"
    lines = _patterns(f"{resolved}.dockerignore", root)
    return Context(_packed(root, inside, lines, kept={inside, own}), dockerfile=inside)


def _with_dockerfile(root: str, content: bytes, lines: list[str]) -> Context:
    """A Dockerfile from elsewhere travels under a name of its own, hidden from COPY."""
    name = f".dockerfile.{secrets.token_hex(10)}"
    return Context(_packed(root, name, lines, content), dockerfile=name)


def _patterns(own: str, root: str) -> list[str]:
    """What stays behind: the Dockerfile's own list goes before that of the context."""
    for path in (own, os.path.join(root, IGNORE_FILE)):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
    return []


def _packed(
    root: str,
    dockerfile: str,
    lines: list[str],
    content: bytes | None = None,
    kept: AbstractSet[str] = frozenset(),
) -> Iterator[bytes]:
    try:
        ignore = Ignore(lines)
    except Invalid as error:
        raise Failure(f"error reading .dockerignore: {error.message}") from error
    packer = Packer(owner=OWNER)
    # The daemon reads them, and drops them where they are ignored.
    kept = {*kept, IGNORE_FILE}
    if content is not None:
        kept = set()
        hidden = [*lines, dockerfile, IGNORE_FILE]
        yield from packer.content(dockerfile, content, mode=0o600)
        yield from packer.content(
            IGNORE_FILE, "\n".join(hidden).encode(errors="surrogateescape"), mode=0o600
        )
    for path, name in _walk(root, "", ignore, kept):
        if content is not None and name == IGNORE_FILE:
            continue
        try:
            yield from packer.entry(path, name)
        except PermissionError as error:
            raise Failure(f"error checking context: no permission to read from '{name}'") from error
    yield END


def _walk(
    root: str, below: str, ignore: Ignore, kept: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Paths to send with their names; directories before what is in them."""
    try:
        children = sorted(os.listdir(os.path.join(root, below)))
    except PermissionError as error:
        raise Failure(f"error checking context: can't stat '{below or root}'") from error
    for child in children:
        name = f"{below}/{child}" if below else child
        path = os.path.join(root, name)
        is_dir = stat.S_ISDIR(os.lstat(path).st_mode)
        ignored = ignore.matches(name) and name not in kept
        if not ignored:
            yield path, name
        if is_dir and not (ignored and ignore.may_skip(name) and not _holds(name, kept)):
            yield from _walk(root, name, ignore, kept)


def _holds(directory: str, kept: AbstractSet[str]) -> bool:
    return any(name.startswith(f"{directory}/") for name in kept)
