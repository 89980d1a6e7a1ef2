"""Isolation by an OCI runtime binary: runc, crun, runsc, kata, or one that the config names.

The backend's short name is the binary's name; the table ``[isolation.NAME]`` may say otherwise::

    [isolation.kata]
    path = "/usr/bin/kata-runtime"
    arguments = ["--debug"]        # global arguments, before the command

State under ``Container.state``::

    runtime/       the binary's own --root
    pid            of the init, decimal
    log.json       the binary's --log, of the last call

``create`` mounts the root in a mount namespace of a short-lived child, which then becomes the
runtime binary: the host's mount table never sees it. The monitor is a child subreaper, so the
init that the binary leaves behind becomes the monitor's child and can be waited for.
"""

from lading_isolation_oci.runtime import Runtime

__all__ = ["Runtime"]
