"""Registry transport: the Registry and Index v1 of 2014.

::

    index     users, repositories and their images, tokens, search     /v1/users /v1/repositories
    registry  documents, layers and ancestries by id; tags             /v1/images

One host may be both (*standalone*), or the index names the registry's hosts. Tokens and cookies are
kept for one operation. Images are chains of documents: :mod:`lading.model.legacy` says how they
become today's images and the reverse. Layers have no digests here; where a registry tells the
checksum over document and layer, it is verified.
"""

from lading_registry_v1.backend import RegistryV1

__all__ = ["RegistryV1"]
