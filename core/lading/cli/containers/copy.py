"""``lading cp``."""

from __future__ import annotations

import base64
import json
import posixpath
import sys
from collections.abc import Iterator
from typing import Any

from lading.cli.command import command, exactly
from lading.cli.containers.changes import write_body
from lading.cli.errors import DaemonError, Failure
from lading.cli.files.copypaths import (
    Place,
    Rename,
    keep_ending,
    local_path,
    local_source,
    local_target,
    plan,
    renamer,
    split_argument,
    split_entry,
)
from lading.cli.files.pack import END, Packer
from lading.cli.files.unpack import unpack
from lading.cli.flags import Call, switch
from lading.cli.images.transfer import pieces
from lading.cli.output.units import human_size
from lading.cli.streams.terminal import is_terminal

# Go's os.FileMode, which the API speaks.
GO_DIRECTORY = 1 << 31
GO_SYMLINK = 1 << 27


@command(
    "Copy files between a container and the host",
    usage="[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
    "        lading cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    arguments=exactly(2),
    flags=(
        switch("archive", "a", "Keep the owners"),
        switch("follow-link", "L", "Copy what a symbolic link points to"),
        switch("quiet", "q", "Do not say how much was copied"),
    ),
    completes="containers",
)
def cp(call: Call) -> None:
    """Copy in the direction that the arguments say."""
    (from_container, source), (to_container, target) = map(split_argument, call.args)
    if not source or not target:
        raise Failure("source and destination can not be empty")
    if from_container and to_container:
        raise Failure("copying between containers is not supported")
    if from_container:
        _copy_out(call, from_container, source, target)
    elif to_container:
        _copy_in(call, to_container, source, target)
    else:
        raise Failure("must specify at least one container source")


def _copy_out(call: Call, container: str, source: str, target: str) -> None:
    session, rebase = call.session, ""
    path = source
    if call.on("follow-link"):
        path, rebase = _follow(call, container, source)
    query = {"path": path}
    with session.request("GET", f"/containers/{container}/archive", query=query) as response:
        if target == "-":
            write_body(response, "")
            return
        stat = _decoded(response.headers.get("x-docker-container-path-stat", ""))
        is_dir = bool(stat["mode"] & GO_DIRECTORY)
        if rebase:
            source_place = Place(source, exists=True, is_dir=is_dir, rebase=split_entry(path)[1])
        else:
            source_place = Place(path, exists=True, is_dir=is_dir)
        destination = local_target(local_path(target))
        directory, rename = plan(source_place, destination)
        if rebase and destination.is_dir:
            rename = renamer(split_entry(path)[1], rebase)
        counted = _Counted(response)
        unpack(counted, directory, rename=rename, owners=call.on("archive"))
    _tell(call, counted.size, destination.path)


def _follow(call: Call, container: str, path: str) -> tuple[str, str]:
    """The target of a link in the container, and the name that the copy shall have."""
    stat = _stat(call, container, path)
    if not stat or not stat["mode"] & GO_SYMLINK:
        return path, ""
    link = stat["linkTarget"]
    if not posixpath.isabs(link):
        link = posixpath.join(posixpath.dirname(path.rstrip("/")), link)
    return keep_ending(posixpath.normpath(link), path), split_entry(path)[1]


def _copy_in(call: Call, container: str, source: str, target: str) -> None:
    destination = _target_in(call, container, target)
    if source == "-":
        if not destination.is_dir:
            raise Failure(f'destination "{container}:{target}" must be a directory')
        _put(call, container, destination.path, pieces(sys.stdin.buffer))
        return
    place = local_source(local_path(source), follow=call.on("follow-link"))
    directory, rename = plan(place, destination)
    counted = _CountedPieces(_packed(place, rename))
    _put(call, container, directory, counted)
    _tell(call, counted.size, f"{container}:{target}")


def _packed(place: Place, rename: Rename) -> Iterator[bytes]:
    directory, base = split_entry(place.path)
    name = place.rebase or base
    path = f"{directory}/." if base == "." else posixpath.join(directory, base)
    if base != "." and place.must_be_directory:
        path += "/."
    yield from Packer().tree(path, rename(name))
    yield END


def _target_in(call: Call, container: str, target: str) -> Place:
    path, stat = target, _stat(call, container, target)
    if stat and stat["mode"] & GO_SYMLINK:
        link = stat["linkTarget"]
        if not posixpath.isabs(link):
            link = posixpath.join(posixpath.dirname(target.rstrip("/")), link)
        path = keep_ending(link, target)
        stat = _stat(call, container, path)
    is_dir = bool(stat and stat["mode"] & GO_DIRECTORY)
    return Place(path, exists=stat is not None, is_dir=is_dir)


def _stat(call: Call, container: str, path: str) -> dict[str, Any] | None:
    """What is at a path of the container; None when nothing is."""
    try:
        with call.session.request(
            "HEAD", f"/containers/{container}/archive", query={"path": path}
        ) as response:
            return _decoded(response.headers.get("x-docker-container-path-stat", ""))
    except DaemonError as error:
        if error.status == 404:
            # A HEAD has no body that would tell a missing container from a missing file.
            call.session.get(f"/containers/{container}/json")
            return None
        raise


def _decoded(header: str) -> dict[str, Any]:
    try:
        stat = json.loads(base64.b64decode(header))
    except ValueError as error:
        raise Failure("unable to decode the daemon's answer about the path") from error
    if not isinstance(stat, dict):
        raise Failure("unable to decode the daemon's answer about the path")
    return stat


def _put(call: Call, container: str, directory: str, body: Any) -> None:
    query = {
        "path": directory,
        "noOverwriteDirNonDir": "true",
        "copyUIDGID": "true" if call.on("archive") else None,
    }
    headers = {"Content-Type": "application/x-tar"}
    call.session.request(
        "PUT", f"/containers/{container}/archive", query=query, body=body, headers=headers
    ).close()


def _tell(call: Call, size: int, target: str) -> None:
    if not call.on("quiet") and is_terminal(2):
        call.session.warn(f"Successfully copied {human_size(size)} to {target}")


class _Counted:
    """A response that counts what is read of it."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.size = 0

    def read(self, size: int, /) -> bytes:
        """Some bytes."""
        data: bytes = self._response.read(size)
        self.size += len(data)
        return data


class _CountedPieces:
    """Pieces that are counted as they go."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            yield piece
