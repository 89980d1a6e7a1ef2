"""Isolation by LXC: liblxc makes the container, keeps it, and joins later processes to it.

Called in its own process (ctypes), with no shell, no interpreter to start and no ``lxc`` program.
How a container comes to be, from the starter S::

    S ── fork ──▶ K                    the keeper: mounts the root where nobody else sees it
                  K  lxc: start        namespaces, id maps, cgroups, host name
                  K ── clone ──▶ I     where LXC would execute the init, :mod:`interpose` steps in
    S ◀──────────── pid, channel ── I  waits
    S  cgroup's limits, resources      I  the rest of config.json (:mod:`lading.bundle.init`)
    S ────────────── "start" ──────▶ I  execve
                  K  lxc: waits for the end, cleans up, ends with the init's own status

LXC sees an ordinary container that runs. Its programs reach the keeper from within the keeper's
network namespace, in which nobody else is: ``nsenter -t KEEPER -n lxc-info -P DIR -n ID``, where
DIR is what ``lading plugin inspect`` calls ``containers``, and KEEPER the init's parent.

State under ``Container.state``: ``init.json`` (pid, start time, cgroup) and ``lxc.log``. LXC's
configuration is ``DIR/ID/config``; compiled seccomp filters are kept in the backend's ``run``.
"""

from lading_isolation_lxc.backend import Lxc

__all__ = ["Lxc"]
