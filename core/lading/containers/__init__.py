"""The life of containers: made from an image, run, looked after, looked into, removed."""

from lading.containers.containers import Containers
from lading.containers.options import (
    AttachOptions,
    CommitOptions,
    Listed,
    ListOptions,
    LogOptions,
    Output,
    Stream,
    Wait,
)
from lading.containers.records import (
    NEVER,
    Container,
    Created,
    Exec,
    Health,
    HostMount,
    MountPoint,
    Probe,
    Processes,
    Pruned,
    Size,
    State,
    Status,
)

__all__ = [
    "NEVER",
    "AttachOptions",
    "CommitOptions",
    "Container",
    "Containers",
    "Created",
    "Exec",
    "Health",
    "HostMount",
    "ListOptions",
    "Listed",
    "LogOptions",
    "MountPoint",
    "Output",
    "Probe",
    "Processes",
    "Pruned",
    "Size",
    "State",
    "Status",
    "Stream",
    "Wait",
]
