"""Registry transport: OCI distribution (spec 1.1), which Docker calls Registry v2.

Fetches by digest, with Docker's and OCI's manifests and indexes; pushes by streamed upload. Bearer
tokens (distribution's token specification) and basic authentication. Nothing is kept on disk.
"""

from lading_registry_v2.backend import RegistryV2

__all__ = ["RegistryV2"]
