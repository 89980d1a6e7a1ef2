"""Where ``cp`` puts things: the rules of Docker's copy for names, directories and slashes."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable

from lading.cli.errors import Failure

CONTAINER, LOCAL = "container", "local"


def split_argument(text: str) -> tuple[str, str]:
    """``CONTAINER:PATH`` or a local path, as (container, path); the container may be empty."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    # `./a:b` and `../a:b` are files here.
    if not colon or container.startswith("."):
        return "", text
    return container, path


def keep_ending(cleaned: str, original: str) -> str:
    """A cleaned path with the ``/.`` or slash that the user wrote at its end, which has meaning."""
    if (original.endswith("/.") or original == ".") and not cleaned.endswith("/."):
        return cleaned.rstrip("/") + "/."
    if original.endswith("/") and not cleaned.endswith("/"):
        return cleaned + "/"
    return cleaned


def local_path(text: str) -> str:
    """A local path made absolute."""
    return keep_ending(os.path.abspath(text), text)


def split_entry(path: str) -> tuple[str, str]:
    """Directory and last name; ``.`` is a name."""
    cleaned = posixpath.normpath(path)
    if path.endswith("/.") or path == ".":
        cleaned = cleaned.rstrip("/") + "/."
    directory, _, base = cleaned.rpartition("/")
    return directory or "/", base or "/"


class Place:
    """One side of a copy: its path, and what is there."""

    def __init__(self, path: str, *, exists: bool, is_dir: bool, rebase: str = "") -> None:
        self.path, self.exists, self.is_dir, self.rebase = path, exists, is_dir, rebase

    @property
    def must_be_directory(self) -> bool:
        """Whether the user's spelling says that it is a directory."""
        return self.path.endswith(("/", "/."))


Rename = Callable[[str], str]


def same(name: str) -> str:
    """Entries keep their names."""
    return name


def plan(source: Place, target: Place) -> tuple[str, Rename]:
    """The directory to unpack into, and how entries are renamed on the way. Raises Failure.

    Into a directory that exists the source goes under its own name; otherwise it takes the
    target's name.
    """
    directory, base = split_entry(target.path)
    old = source.rebase or split_entry(source.path)[1]
    if target.exists and target.is_dir:
        return target.path, same
    if target.exists and source.is_dir:
        raise Failure("cannot copy directory")
    if not target.exists and not source.is_dir and target.must_be_directory:
        raise Failure(f'no such directory: "{target.path}"')
    return directory, renamer(old, base)


def renamer(old: str, new: str) -> Rename:
    """Replaces the first part of a name, which is ``old``, by ``new``."""
    bare = "" if old in ("/", ".") else old

    def rename(name: str) -> str:
        cleaned = name.removeprefix("./").lstrip("/") if old in ("/", ".") else name.lstrip("/")
        if not bare:
            rest = "" if cleaned == "." else cleaned
            return f"{new}/{rest}".rstrip("/")
        if cleaned == bare or cleaned.startswith(f"{bare}/"):
            return new + cleaned[len(bare) :]
        return cleaned

    return rename


def local_source(path: str, *, follow: bool) -> Place:
    """What is copied from here; raises Failure when it is not there."""
    rebase = ""
    asserts = path.endswith(("/", "/."))
    if follow and os.path.islink(path.rstrip("/")):
        resolved = os.path.realpath(path)
        rebase = os.path.basename(path.rstrip("/"))
        path = keep_ending(resolved, path)
    bare = path.rstrip("/") or "/"
    if not os.path.lexists(bare):
        raise Failure(f"lstat {path}: no such file or directory")
    is_dir = os.path.isdir(path) and (asserts or not os.path.islink(bare))
    if asserts and not os.path.isdir(path):
        raise Failure(f"{path}: not a directory")
    return Place(path, exists=True, is_dir=is_dir, rebase=rebase)


def local_target(path: str) -> Place:
    """Where it is copied to here; links are followed. Raises Failure without a parent."""
    resolved = keep_ending(os.path.realpath(path), path)
    if os.path.exists(resolved.rstrip("/") or "/"):
        is_dir = os.path.isdir(resolved)
        if not is_dir and path.endswith(("/", "/.")):
            raise Failure(f"{path}: not a directory")
        return Place(resolved, exists=True, is_dir=is_dir)
    parent = split_entry(resolved)[0]
    if not os.path.isdir(parent):
        raise Failure(f'invalid output path: directory "{parent}" does not exist')
    return Place(resolved, exists=False, is_dir=False)
