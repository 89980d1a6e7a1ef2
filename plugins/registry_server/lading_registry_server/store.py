"""All that a registry keeps, put together."""

from __future__ import annotations

from pathlib import Path

from lading.store.blobs import Blobs
from lading.store.db import Database
from lading_registry_server.access import Access
from lading_registry_server.chains import Chains
from lading_registry_server.manifests import Manifests
from lading_registry_server.repositories import Repositories
from lading_registry_server.schema import SCHEMA
from lading_registry_server.tokens import Tokens
from lading_registry_server.uploads import Uploads
from lading_registry_server.users import Users


class Store:
    """The content and metadata under one root directory."""

    def __init__(self, root: Path, users: Path | None = None) -> None:
        """``users``: the users file; without one everybody may do everything."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self.db = Database(root / "registry.db", [SCHEMA])
        self.blobs = Blobs(root)
        self.repositories = Repositories(self.db)
        self.manifests = Manifests(self.db, self.blobs, self.repositories)
        self.chains = Chains(self.db, self.blobs, self.repositories, self.manifests)
        self.uploads = Uploads(self.blobs)
        self.access = Access(
            Users(users) if users is not None else None,
            Tokens.of(root / "secret"),
            self.repositories,
        )

    def close(self) -> None:
        """Close everything; uploads can be taken up later."""
        self.uploads.close()
        self.db.close()
