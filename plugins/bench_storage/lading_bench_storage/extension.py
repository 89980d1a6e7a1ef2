"""The extension that adds ``lading bench``."""

from __future__ import annotations

from typing import ClassVar

from lading.hooks import Context, Probe, hookimpl
from lading.hooks.extension import Commands


class BenchStorage:
    """Adds the command; in the daemon it does nothing."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        """Nothing is kept of the context."""

    @hookimpl
    def probe(self) -> Probe:
        """Works wherever Python does."""
        return Probe(usable=True)

    @hookimpl
    def register_commands(self, commands: Commands) -> None:
        """Add ``bench``."""
        commands.add("bench", "lading_bench_storage.commands:bench", "Measure backends")
