"""What is in a container's root: differences, export, copies in and out, commit."""

from __future__ import annotations

from lading.containers.parts import Parts
from lading.containers.table import Table

_CHUNK = 1 << 16


class Content:
    """Reads and writes roots through tasks."""

    def __init__(self, parts: Parts, table: Table) -> None:
        self._parts = parts
        self._table = table
