"""A root's ``/etc/passwd`` and ``/etc/group``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lading.linux import paths
from lading.roots.mounted import mounted

#: A user database beyond this is not read to its end, in bytes.
LIMIT = 4 << 20


def read(args: Mapping[str, Any], fds: Sequence[int]) -> list[str]:
    """Task: both texts, from the root that ``rootfs`` describes."""
    with mounted(args) as root:
        return read_below(root)


def read_below(root: int) -> list[str]:
    """Both texts; what is missing, or no file, is empty."""
    return [_text(root, "etc/passwd"), _text(root, "etc/group")]


def _text(root: int, path: str) -> str:
    try:
        return paths.read_file(root, path, LIMIT).decode(errors="replace")
    except OSError:
        return ""
