"""Work in another network namespace: only the calling thread goes there, and comes back."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lading.errors import NotFound

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def open_namespace(path: str) -> int:
    """A descriptor of the namespace at ``path``. Raises NotFound when it is gone."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f'no network namespace "{path}"') from error


@contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Run the block in ``namespace``; ``home`` is where the thread belongs."""
    _setns(namespace)
    try:
        yield
    finally:
        _setns(home)


def _setns(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
