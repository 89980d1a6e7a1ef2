"""Isolation by system calls alone: namespaces, control groups, mounts, capabilities, seccomp.

Stands on clone(2), setns(2) with pidfds (kernel 5.8), openat2(2) (5.6), mount_setattr(2) (5.12) and
libseccomp. What happens within the new namespaces is :mod:`lading.bundle`'s. How a container comes
to be, in its monitor M::

    M  cgroup made, limits set
    M ── clone(new namespaces) ──▶ I                    I will be the init
    M  maps users, if asked        I  cgroup, namespaces joined, root and mounts, pivot_root
    M ◀──────── "ready" ────────── I  waits
    M ───────── "start" ─────────▶ I  user, capabilities, seccomp, execve
    M ◀── end of file, or error ── I

State under ``Container.state``: ``init.json`` (pid, start time, cgroup). Compiled seccomp
filters are kept in the backend's ``run`` directory.
"""

from lading_isolation_native.backend import Native

__all__ = ["Native"]
