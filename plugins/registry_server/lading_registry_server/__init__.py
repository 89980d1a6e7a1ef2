"""A registry and index for images: OCI distribution and the v1 protocols of 2014 on one port.

::

    ROOT/blobs/sha256/<hex>   content, by digest (OCI layout)
    ROOT/ingest/              uploads that are not complete
    ROOT/registry.db          repositories, tags, manifests, chains of 2014, stars, search index
    ROOT/secret               the key that signs tokens

``app``          one request: which protocol it is for, errors as that protocol has them
``distribution`` the distribution API (``/v2/``); ``uploads``, ``manifests`` are its parts
``legacy_index``, ``legacy_registry``  the two roles of ``/v1/``
``chains``       images of 2014, and how they and today's images become each other
``repositories`` names, tags, stars, search
``users``, ``access``, ``tokens``      who is who, who may what
``web``          pages for people
``collection``   removal of content that nothing refers to

What was pushed by one protocol can be pulled by the other. The mapping is that of
:mod:`lading.model.legacy`: the same image has the same ids, whichever way it came.
"""
