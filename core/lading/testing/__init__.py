"""For plugin authors and for Lading's own tests: conformance kits and a scratch daemon.

``lading.testing.isolation``, ``filesystem``, ``network`` and ``registry`` hold one kit per role;
``lading.testing.daemon`` runs a real ``ladingd`` on a root of its own.
"""
