"""Filesystem backend on a containerd snapshotter, over its gRPC socket.

The backend is there under four names, ``snapshotter``, ``stargz``, ``nydus`` and ``overlaybd``, so
that one host can run containers on several snapshotters. Options (``[filesystem.NAME]``):

``address``      containerd's socket, or a proxy snapshotter's own (it says itself which it is);
                 ``/run/containerd/containerd.sock``
``snapshotter``  containerd's name of the snapshotter; ``overlayfs`` for the backend
                 ``snapshotter``, else the backend's name
``namespace``    containerd's namespace, for this engine alone; ``lading``
``timeout``      seconds that one call may take: copying snapshotters need long; 120

containerd collects what nothing refers to: layers and snapshots live by references from images,
containers and leases, none of which containerd knows of ours. So every snapshot has the label
``containerd.io/gc.root`` from the call that makes it, and is kept until it is removed. What is
removed goes from containerd's table at once and from the disk with its next collection, which a
lease that is deleted synchronously sets off.

gRPC and its threads are loaded at the first call that needs them, not on hosts where containerd
merely runs. They must not be forked: only the daemon itself loads them, never the spawner.
"""

from lading_fs_snapshotter.snapshotter import Snapshotter

__all__ = ["Snapshotter"]
