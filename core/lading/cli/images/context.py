"""The build context: which files are sent, in which form."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from lading.cli.errors import Failure
from lading.cli.files.pack import CHUNK, END, Packer
from lading.errors import Invalid
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
    if is_git(source):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lading-build-"))
        return _from_directory(_cloned(source, folder), dockerfile)
    if source.startswith(("http://", "https://")):
        return Context(None, dockerfile=dockerfile, remote=source)
    if not os.path.isdir(source):
        raise Failure(f'unable to prepare context: path "{source}" not found')
    return _from_directory(os.path.realpath(source), dockerfile)


def is_git(source: str) -> bool:
    """Whether a source is a git repository elsewhere."""
    if source.startswith(("git://", "git@", "github.com/", "ssh://")):
        return True
    path = source.partition("#")[0]
    return source.startswith(("http://", "https://")) and path.endswith(".git")


def _from_stdin(dockerfile: str) -> Context:
    stdin = sys.stdin.buffer
    head = b""
    while len(head) < 512 and (data := stdin.read(512 - len(head))):
        head += data
    if not head:
        raise Failure("unable to prepare context: stdin is empty")
    is_tar = head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == b"ustar"
    if is_tar or head.startswith(ARCHIVES):
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
    address, _, fragment = source.partition("#")
    reference, _, below = fragment.partition(":")
    if address.startswith("github.com/"):
        address = f"https://{address}"
    try:
        _git(folder, "init")
        _git(folder, "remote", "add", "origin", "--", address)
        _git(folder, "fetch", "--depth", "1", "origin", "--", reference or "HEAD")
        _git(folder, "checkout", "FETCH_HEAD")
        _git(folder, "submodule", "update", "--init", "--recursive", "--depth=1")
    except FileNotFoundError as error:
        raise Failure("unable to prepare context: unable to find 'git'") from error
    root = os.path.realpath(folder)
    found = os.path.realpath(os.path.join(root, below))
    if found != root and not found.startswith(f"{root}/"):
        raise Failure(f'unable to prepare context: "{below}" is outside of the repository')
    if not os.path.isdir(found):
        raise Failure(f'unable to prepare context: "{below}" is no directory of the repository')
    return found


def _git(folder: str, *arguments: str) -> None:
    # No prompt: a build has nobody to answer it.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_PROTOCOL_FROM_USER": "0"}
    done = subprocess.run(
        ["git", "-C", folder, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise Failure(f"unable to prepare context: git {arguments[0]}: {done.stderr.strip()}")


def _from_directory(root: str, dockerfile: str) -> Context:
    if dockerfile == "-":
        return _with_dockerfile(root, sys.stdin.buffer.read())
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
            return _with_dockerfile(root, file.read())
    inside = os.path.relpath(resolved, root)
    return Context(_packed(root, inside, _patterns(root)), dockerfile=inside)


def _with_dockerfile(root: str, content: bytes) -> Context:
    """A Dockerfile from elsewhere travels under a name of its own, hidden from COPY."""
    name = f".dockerfile.{secrets.token_hex(10)}"
    lines = _patterns(root)
    return Context(_packed(root, name, lines, content), dockerfile=name)


def _patterns(root: str) -> list[str]:
    try:
        with open(os.path.join(root, IGNORE_FILE), encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _packed(
    root: str, dockerfile: str, lines: list[str], content: bytes | None = None
) -> Iterator[bytes]:
    try:
        ignore = Ignore(lines)
    except Invalid as error:
        raise Failure(f"error reading .dockerignore: {error.message}") from error
    packer = Packer(owner=OWNER)
    kept = {dockerfile, IGNORE_FILE}
    if content is not None:
        kept = set()
        hidden = [*lines, dockerfile, IGNORE_FILE]
        yield from packer.content(dockerfile, content, mode=0o600)
        yield from packer.content(IGNORE_FILE, "\n".join(hidden).encode(), mode=0o600)
    for path, name in _walk(root, "", ignore, kept):
        if content is not None and name == IGNORE_FILE:
            continue
        try:
            yield from packer.entry(path, name)
        except PermissionError as error:
            raise Failure(f"error checking context: no permission to read from '{name}'") from error
    yield END


def _walk(root: str, below: str, ignore: Ignore, kept: set[str]) -> Iterator[tuple[str, str]]:
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


def _holds(directory: str, kept: set[str]) -> bool:
    return any(name.startswith(f"{directory}/") for name in kept)
