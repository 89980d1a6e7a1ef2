"""Isolation by LXC: ``lxc-start`` keeps the container, ``lxc-attach`` joins it.

State under ``Container.state``::

    lxc.conf       the configuration that ``config.json`` was translated to
    seccomp        the system call filter, in LXC's text format (version 2)
    log            of the last lxc-start
    pid            of the init, decimal
    ready, gate    FIFOs of the ``start-host`` hook: it says it waits, then waits for ``start``
    error          what the mount hook failed with
    lxc/           LXC's own directory of containers

``lxc-start`` runs in the foreground as the monitor's child, and its exit code is the container's.
All mounts are made by a ``mount`` hook in the container's own namespaces, with the names resolved
inside the root; the root itself lies in the private mount namespace that ``lxc-start`` runs in.
"""

from lading_isolation_lxc.backend import Lxc

__all__ = ["Lxc"]
