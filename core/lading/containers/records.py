"""What the engine knows of a container, as values: a reader never sees one half-changed.

Records are frozen and replaced as a whole; the same structs are the JSON in the metadata. Times
are RFC 3339 texts with nanoseconds, as Docker's API has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from lading.model.docker import ContainerConfig, HostConfig, NetworkingConfig

#: What Docker shows for a time that has not come.
NEVER = "0001-01-01T00:00:00Z"


class Status(StrEnum):
    """Docker's words for the state of a container."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of the records."""


class Probe(Record, frozen=True):
    """One run of a health check; ``output`` is cut at 4096 bytes."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(Record, frozen=True):
    """What the health check has found: ``starting``, ``healthy`` or ``unhealthy``."""

    status: str = "starting"
    failing_streak: int = 0
    log: tuple[Probe, ...] = ()


class State(Record, frozen=True):
    """The state of a container as ``inspect`` shows it; ``pid`` is the host's, 0 when none."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process: also true when paused, as in Docker."""
        return self.status in (Status.RUNNING, Status.PAUSED)


class MountPoint(Record, frozen=True):
    """A mount of a container as ``inspect`` lists it.

    ``type`` is ``bind``, ``volume``, ``tmpfs`` or ``image``; ``name`` and ``driver`` are those of a
    volume; ``source`` is the path on the host (of an image: its ID). ``anonymous`` volumes go
    with the container. ``copy``: a volume that is empty gets the image's content of that place.
    ``options`` are a tmpfs's. ``create_source``: a missing directory of the host is made.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    anonymous: bool = False
    copy: bool = True
    options: tuple[str, ...] = ()
    subpath: str = ""
    recursive: bool = True
    recursive_ro: bool = False
    create_source: bool = False
    owners_mapped: bool = False


class Container(Record, frozen=True):
    """A container: what was asked for, what it was made of, and how it is now.

    ``config`` is the request merged with the image's config. ``image`` is the image's ID,
    ``config.image`` what the user wrote. ``path`` and ``args`` are the command. ``filesystem`` and
    ``isolation`` name the backends it was made with. ``name`` has no leading slash.
    ``touched``: its root may differ from the image's. ``rootfs`` is the directory that is its root
    in place of an image, ``rootfs_mode`` one of ``lading.containers.asked``; ``hooks`` are OCI's.
    """

    id: str
    name: str
    created: str
    image: str
    config: ContainerConfig
    host_config: HostConfig
    path: str
    args: tuple[str, ...]
    filesystem: str
    isolation: str
    snapshot_parent: str = ""
    platform: str = "linux"
    state: State = State()
    mounts: tuple[MountPoint, ...] = ()
    networking: NetworkingConfig = NetworkingConfig()
    restart_count: int = 0
    manually_stopped: bool = False
    has_run: bool = False
    touched: bool = False
    rootfs: str = ""
    rootfs_mode: str = ""
    hooks: dict[str, list[dict[str, Any]]] = {}
    log_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    resolv_conf_path: str = ""
    mount_label: str = ""
    process_label: str = ""
    apparmor_profile: str = ""

    @property
    def tty(self) -> bool:
        """Whether its output is one raw stream."""
        return bool(self.config.tty)


class HostMount(Record, frozen=True):
    """An image or container that is shown at ``target``, a directory of the host.

    ``kind`` is ``image`` or ``container``, ``object`` its id and ``name`` what the user called it.
    ``key`` is the view on the filesystem backend, of images only; ``own``: the engine made the
    directory.
    """

    target: str
    kind: str
    object: str
    name: str
    filesystem: str
    key: str
    own: bool
    created: str


class Exec(Record, frozen=True):
    """A process that was added to a running container, as ``exec inspect`` shows it."""

    id: str
    container: str
    command: tuple[str, ...]
    tty: bool = False
    open_stdin: bool = False
    open_stdout: bool = False
    open_stderr: bool = False
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    env: tuple[str, ...] = ()
    detach_keys: str = ""
    console_size: tuple[int, int] | None = None
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    can_remove: bool = False


class Created(Record, frozen=True):
    """The answer to ``create``."""

    id: str
    warnings: Sequence[str] = ()


class Size(Record, frozen=True):
    """Bytes of a container's own layer, and of its whole root."""

    rw: int
    root: int


class Processes(Record, frozen=True):
    """The answer to ``top``."""

    titles: Sequence[str]
    processes: Sequence[Sequence[str]]


class Pruned(Record, frozen=True):
    """What ``prune`` has removed, and the bytes that this freed."""

    deleted: Sequence[str]
    space: int
