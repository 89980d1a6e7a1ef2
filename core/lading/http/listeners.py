"""Where a server listens: ``unix:///path``, ``tcp://host:port``, ``fd://``.

``fd://`` takes all sockets that a service manager has handed over (``LISTEN_FDS``,
sd_listen_fds(3)); ``fd://NAME`` those of that name (``LISTEN_FDNAMES``), ``fd://N`` descriptor N.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lading.errors import InUse, Invalid, LadingError, NotFound

if TYPE_CHECKING:
    import ssl

BACKLOG = 1024
FIRST_DESCRIPTOR = 3


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket. ``path`` is the file to remove at the end; none for a socket that was
    handed over, which belongs to the service manager."""

    socket: socket.socket
    address: str
    tls: ssl.SSLContext | None = None
    path: Path | None = None

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def listen(
    address: str, *, tls: ssl.SSLContext | None = None, group: str | int | None = None
) -> list[Listener]:
    """Listen there. ``tls`` is for TCP, ``group`` (name or number) may use a unix socket.

    Raises Invalid for an address of another form, InUse when somebody listens there, NotFound
    for an unknown group or when no socket was handed over, LadingError for what else fails.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        raise Invalid(f'listen on "{address}": write unix://PATH, tcp://HOST:PORT or fd://')
    try:
        if scheme == "unix":
            return [_unix(address, Path(rest), group)]
        if scheme == "tcp":
            return [_tcp(address, rest, tls)]
        if scheme == "fd":
            return [_inherited(number, address, tls) for number in _handed_over(rest)]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InUse(f'listen on "{address}": {error.strerror}') from error
        raise LadingError(f'listen on "{address}": {error.strerror or error}') from error
    raise Invalid(f'listen on "{address}": the scheme is none of unix, tcp, fd')


def _unix(address: str, path: Path, group: str | int | None) -> Listener:
    if not path.is_absolute():
        raise Invalid(f'listen on "{address}": the path is not absolute')
    gid = _group_id(group)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777)  # closed to all until owner and mode are set
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    if gid is not None:
        os.chown(path, -1, gid)
    path.chmod(0o660)
    listening.listen(BACKLOG)
    return Listener(listening, address, path=path)


def _remove_stale(path: Path) -> None:
    """Remove what a server that was killed left behind; a live one keeps its socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EADDRINUSE, "the file exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "another server answers there")


def _group_id(group: str | int | None) -> int | None:
    if group is None or isinstance(group, int):
        return group
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise NotFound(f'group "{group}" does not exist') from error


def _tcp(address: str, rest: str, tls: ssl.SSLContext | None) -> Listener:
    host, colon, port = rest.rstrip("/").rpartition(":")
    if not colon or not port.isdigit():
        raise Invalid(f'listen on "{address}": no port')
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    return Listener(listening, address, tls)


def _handed_over(name: str) -> list[int]:
    count = 0
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        count = int(os.environ.get("LISTEN_FDS", "0"))
    numbers = list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count))
    if name.isdigit():
        return [int(name)]
    if name not in ("", "*"):
        names = os.environ.get("LISTEN_FDNAMES", "").split(":")
        numbers = [n for n, known in zip(numbers, names, strict=False) if known == name]
    if not numbers:
        raise NotFound(f'listen on "fd://{name}": the service manager handed over no such socket')
    return numbers


def _inherited(number: int, address: str, tls: ssl.SSLContext | None) -> Listener:
    listening = socket.socket(fileno=number)
    os.set_inheritable(number, False)
    listening.setblocking(True)
    over_tcp = listening.family in (socket.AF_INET, socket.AF_INET6)
    return Listener(listening, address, tls if over_tcp else None)
