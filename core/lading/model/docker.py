"""Bodies of the Docker Engine API, versions 1.24 to 1.51, with some members from before.

They are read with :func:`lading.model.body.decode` and written with ``msgspec.json.encode``; the
engine stores them as JSON in the same form. An empty value means "not given", as it does on the
wire; members where that matters are ``None`` then. Units are Docker's: bytes, nanoseconds for
durations, microseconds for CPU periods.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from lading.model.body import Body, Words, convert, decode

__all__ = [
    "AuthConfig",
    "BindOptions",
    "ContainerConfig",
    "ContainerCreate",
    "CopyBody",
    "DeviceMapping",
    "DeviceRequest",
    "DriverConfig",
    "Empty",
    "EndpointIPAMConfig",
    "EndpointSettings",
    "ExecConfig",
    "ExecStart",
    "HealthConfig",
    "HostConfig",
    "ImageOptions",
    "KeyValue",
    "LogConfig",
    "Mount",
    "NetworkingConfig",
    "PortBinding",
    "Resources",
    "RestartPolicy",
    "ThrottleDevice",
    "TmpfsOptions",
    "Ulimit",
    "Update",
    "VolumeCreate",
    "VolumeOptions",
    "WeightDevice",
    "convert",
    "decode",
]


class Empty(Body, frozen=True):
    """The value of a map that is used as a set: ``{"80/tcp": {}}``."""


class HealthConfig(Body, frozen=True):
    """How health is tested. ``test`` begins with ``NONE``, ``CMD`` or ``CMD-SHELL``."""

    test: Words = []
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class ContainerConfig(Body, frozen=True):
    """What a container has of its own, independent of the host; also an image's defaults.

    ``entrypoint`` None means the image's; ``[""]`` or ``[]`` none at all.
    """

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Empty] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: Words | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Empty] = {}
    working_dir: str = ""
    entrypoint: Words | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] = []
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: Words | None = None


class WeightDevice(Body, frozen=True):
    """Block I/O weight of one device."""

    path: str = ""
    weight: int = 0


class ThrottleDevice(Body, frozen=True):
    """Block I/O limit of one device, bytes or operations per second."""

    path: str = ""
    rate: int = 0


class DeviceMapping(Body, frozen=True):
    """A device of the host shown in the container; permissions are of ``rwm``."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Body, frozen=True):
    """Devices asked of a driver, such as GPUs."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] = field(default_factory=list, name="DeviceIDs")
    capabilities: list[list[str]] = []
    options: dict[str, str] = {}


class Ulimit(Body, frozen=True):
    """One resource limit, named as setrlimit(2) does without its prefix; -1 is unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class Resources(Body, frozen=True):
    """Limits; those that ``update`` can change are among them."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = field(
        default_factory=list, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[ThrottleDevice] = field(
        default_factory=list, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] = []
    device_requests: list[DeviceRequest] = []
    kernel_memory: int = 0
    kernel_memory_tcp: int = field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] = []
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = field(default=0, name="IOMaximumBandwidth")


class LogConfig(Body, frozen=True):
    """The log driver and its options."""

    type: str = ""
    config: dict[str, str] = {}


class RestartPolicy(Body, frozen=True):
    """``no`` (or empty), ``always``, ``unless-stopped``, ``on-failure``; count 0 is unlimited."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(Body, frozen=True):
    """Where a container's port is published; empty host port: any free one; may be a range."""

    host_ip: str = ""
    host_port: str = ""


class DriverConfig(Body, frozen=True):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class BindOptions(Body, frozen=True):
    """Options of a bind mount.

    ``owners_mapped`` is Lading's own: a container with a user namespace sees the owners as the host
    has them, those of root as its root.
    """

    propagation: str = ""
    owners_mapped: bool = False
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Body, frozen=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Body, frozen=True):
    """Options of a tmpfs mount; ``mode`` is a number as in chmod(2)."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class ImageOptions(Body, frozen=True):
    """Options of an image mount."""

    subpath: str = ""


class Mount(Body, frozen=True):
    """One mount in the long form: ``bind``, ``volume``, ``tmpfs``, ``image``."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class KeyValue(Body, frozen=True):
    """One line of an LXC configuration."""

    key: str = ""
    value: str = ""


class HostConfig(Resources, frozen=True):
    """What ties a container to this host.

    ``masked_paths`` and ``readonly_paths`` None mean the defaults, an empty list none.
    """

    binds: list[str] = []
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] = []
    mounts: list[Mount] = []
    console_size: list[int] = []
    annotations: dict[str, str] = {}
    cap_add: Words = []
    cap_drop: Words = []
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] = []
    group_add: list[str] = []
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] = []
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = []
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    init: bool | None = None
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    lxc_conf: list[KeyValue] = []


class EndpointIPAMConfig(Body, frozen=True):
    """Addresses wished for."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] = field(default_factory=list, name="LinkLocalIPs")


class EndpointSettings(Body, frozen=True):
    """How a container joins one network; addresses that the daemon chose are not in here."""

    ipam_config: EndpointIPAMConfig | None = field(default=None, name="IPAMConfig")
    links: list[str] = []
    aliases: list[str] = []
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


class NetworkingConfig(Body, frozen=True):
    """The networks to join, by name or id."""

    endpoints_config: dict[str, EndpointSettings] = {}


class ContainerCreate(ContainerConfig, frozen=True):
    """``POST /containers/create``; the members from ``memory`` on are those of 2014's clients."""

    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpuset: str = ""
    volumes_from: list[str] | str = ""  # of 2014 a comma's list; dockerode sends an empty array
    dns: list[str] = []

    @property
    def config(self) -> ContainerConfig:
        """The container's own part."""
        names = ContainerConfig.__struct_fields__
        return ContainerConfig(**{name: getattr(self, name) for name in names})

    @property
    def host(self) -> HostConfig:
        """The host's part, with what clients of 2014 send outside it."""
        host = self.host_config
        early: dict[str, Any] = {
            "memory": self.memory,
            "memory_swap": self.memory_swap,
            "cpu_shares": self.cpu_shares,
            "cpuset_cpus": self.cpuset,
            "volumes_from": _names(self.volumes_from),
            "dns": self.dns,
        }
        given = {k: v for k, v in early.items() if v and not getattr(host, k)}
        return msgspec.structs.replace(host, **given) if given else host


def _names(listed: list[str] | str) -> list[str]:
    return [v for v in listed.split(",") if v] if isinstance(listed, str) else listed


class Update(Resources, frozen=True):
    """``POST /containers/{id}/update``: zero and None leave a value as it is."""

    restart_policy: RestartPolicy | None = None


class ExecConfig(Body, frozen=True):
    """``POST /containers/{id}/exec``."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[int] = []
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: list[str] = []
    working_dir: str = ""
    cmd: Words = []


class ExecStart(Body, frozen=True):
    """``POST /exec/{id}/start``."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] = []


class CopyBody(Body, frozen=True):
    """``POST /containers/{id}/copy``, the ``cp`` of clients before 1.20."""

    resource: str = ""


class VolumeCreate(Body, frozen=True):
    """``POST /volumes/create``."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


class AuthConfig(Body, rename="lower", frozen=True):
    """Credentials for a registry, of ``/auth`` and of the header ``X-Registry-Auth``."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    server_address: str = field(default="", name="serveraddress")
    identity_token: str = field(default="", name="identitytoken")
    registry_token: str = field(default="", name="registrytoken")
