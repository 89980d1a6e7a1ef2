"""The daemon as a process on its host: lock, pid file, service manager, logging."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lading.errors import Unavailable

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


@contextmanager
def locked(data_root: Path) -> Iterator[None]:
    """Hold the data root for this daemon alone. Raises Unavailable when another one has it."""
    descriptor = os.open(data_root / "lading.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f'lock data root "{data_root}": another daemon uses it',
                hint="stop it, or give this one another --data-root",
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Have the process id in a file. Raises Unavailable when a live daemon's is there."""
    if (other := _daemon_in(path)) and other != os.getpid():
        raise Unavailable(
            f'pid file "{path}": process {other} is running',
            hint=f"remove the file if {other} is no ladingd, or give another --pidfile",
        )
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _daemon_in(path: Path) -> int:
    """The process id in the file, if such a process is a ladingd; process ids are reused."""
    try:
        number = int(path.read_text())
        command = Path(f"/proc/{number}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return number if b"ladingd" in command else 0


def notify(message: str) -> None:
    """Tell the service manager (sd_notify(3)); without one, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.connect(address)
            manager.sendall(message.encode())
        except OSError as error:
            logging.getLogger(__name__).warning("notify the service manager: %s", error)


def set_up_logging(level: str, *, debug: bool) -> None:
    """Log to standard error, in the form that journald and people read."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if debug else _LEVELS[level])
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    root.addHandler(handler)
