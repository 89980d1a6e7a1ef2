"""What route modules register with."""

from __future__ import annotations

from typing import Protocol

from lading.http.messages import App


class Routes(Protocol):
    """Where routes are added; :class:`lading.api.app.Api` is one."""

    def add(self, method: str, pattern: str, handler: App) -> None:
        """Add a route, written without the version prefix."""
        ...
