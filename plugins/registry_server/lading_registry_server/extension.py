"""The extension that adds ``lading registry``."""

from __future__ import annotations

from typing import ClassVar

from lading.hooks import Context, Probe, hookimpl
from lading.hooks.extension import Commands


class RegistryServer:
    """Adds the commands; in the daemon it does nothing."""

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
        """Add ``registry``."""
        commands.add(
            "registry", "lading_registry_server.commands:registry", "Run a registry of your own"
        )
