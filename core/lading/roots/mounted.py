"""A container's root, mounted in a task's own mount namespace."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lading.hooks.common import Mount
from lading.linux import mounts, syscalls


def to_wire(recipe: Sequence[Mount]) -> list[list[Any]]:
    """A recipe as JSON, as the argument ``rootfs`` of a task."""
    return [[m.type, m.source, list(m.options), m.target] for m in recipe]


@contextmanager
def mounted(args: Mapping[str, Any]) -> Iterator[int]:
    """Mount the recipe ``rootfs`` and yield a descriptor of the root."""
    recipe = [Mount(t, s, tuple(o), to) for t, s, o, to in args["rootfs"]]
    top = tempfile.mkdtemp(prefix="lading-root-")
    try:
        mounts.mount_recipe(recipe, top)
        root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield root
        finally:
            os.close(root)
            syscalls.umount2(top, syscalls.MNT_DETACH)
    finally:
        os.rmdir(top)
