"""A container's OCI ``config.json`` (runtime-spec 1.2), from what is known when it starts.

Everything here is a pure function of :class:`Inputs`, save for the devices of the host that are
looked up when they were asked for.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lading.containers import devices, merge, modes, resources, seccomp, security
from lading.containers.mounts import in_order, tmpfs_options
from lading.containers.records import Container, MountPoint
from lading.errors import Invalid
from lading.hooks.common import Mount
from lading.hooks.isolation import INIT_ANNOTATION
from lading.model.docker import HostConfig, Ulimit

Json = dict[str, Any]

#: Nothing in the document needs a later one, and runtimes refuse versions that they do not know.
VERSION = "1.0.2"


@dataclass(frozen=True, slots=True)
class User:
    """Who the process is, as the image's user database says; ids are inside the container."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


@dataclass(frozen=True, slots=True)
class IdMapping:
    """One line of a user namespace's map."""

    inside: int
    outside: int
    size: int


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the daemon's configuration says for containers that say nothing."""

    cgroup_parent: str = "/lading"
    shm_size: int = 64 << 20
    ulimits: tuple[Ulimit, ...] = ()
    ipc_mode: str = "private"
    cgroupns_mode: str = "private"
    no_new_privileges: bool = False
    seccomp_profile: str | None = None
    init: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a config is made from.

    ``network`` is the path of the network namespace, None for the host's, "" for a new one.
    ``joined`` maps ``pid`` and ``ipc`` to the namespace path of another container. ``sources``
    gives the path on the host for the destination of each bind and volume, ``images`` the recipe
    of each image mount. ``shm`` is the directory of a shareable /dev/shm. ``links`` are
    environment rows.
    """

    container: Container
    user: User
    hostname: str
    network: str | None
    defaults: Defaults = Defaults()
    joined: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Sequence[Mount]] = field(default_factory=dict)
    shm: str = ""
    links: Sequence[str] = ()
    uid_map: Sequence[IdMapping] = ()
    gid_map: Sequence[IdMapping] = ()

    @property
    def host(self) -> HostConfig:
        """Short for the container's HostConfig."""
        return self.container.host_config

    @property
    def remapped(self) -> bool:
        """Whether it has a user namespace."""
        return bool(self.uid_map)


def build(inputs: Inputs) -> Json:
    """The whole document. Raises Invalid for what can only be found wrong now."""
    container, host = inputs.container, inputs.host
    options = security.parse_options(
        host.security_opt, no_new_privileges=inputs.defaults.no_new_privileges
    )
    spec: Json = {
        "ociVersion": VERSION,
        "process": _process(inputs, options),
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "mounts": list(_mounts(inputs, options)),
        "annotations": dict(host.annotations),
        "linux": _linux(inputs, options),
    }
    if not modes.uts(host).host:
        spec["hostname"] = inputs.hostname
        if container.config.domainname:
            spec["domainname"] = container.config.domainname
    if container.hooks:
        spec["hooks"] = container.hooks
    if wants_init(inputs.defaults, host):
        spec["annotations"][INIT_ANNOTATION] = "true"
    return spec


def wants_init(defaults: Defaults, host: HostConfig) -> bool:
    """Whether process 1 is to be an init (``--init``)."""
    return defaults.init if host.init is None else host.init


def _process(inputs: Inputs, options: security.SecurityOptions) -> Json:
    container, host, user = inputs.container, inputs.host, inputs.user
    config = container.config
    process: Json = {
        "terminal": config.tty,
        "user": oci_user(user),
        "args": [container.path, *container.args],
        "env": merge.with_home(merge.environment(config, inputs.hostname, inputs.links), user.home),
        "cwd": config.working_dir or "/",
        "capabilities": security.oci_capabilities(security.capabilities(host), uid=user.uid),
        "rlimits": resources.rlimits(inputs.defaults.ulimits, host.ulimits),
        "noNewPrivileges": options.no_new_privileges,
    }
    if config.tty and len(host.console_size) == 2 and all(host.console_size):
        process["consoleSize"] = console_size(host.console_size)
    if host.oom_score_adj:
        process["oomScoreAdj"] = host.oom_score_adj
    if profile := apparmor_profile(host, options):
        process["apparmorProfile"] = profile
    if label := container.process_label:
        process["selinuxLabel"] = label
    return process


def console_size(size: Sequence[int]) -> Json:
    """``consoleSize`` of rows and columns."""
    return {"height": size[0], "width": size[1]}


def oci_user(user: User) -> Json:
    """OCI ``process.user``.

    The primary group is among the additional ones, too, as login(1) has it: a program that changes
    its group (a set-group-ID one) keeps it, and with it what files refuse to that group.
    """
    groups = dict.fromkeys((user.gid, *user.groups))
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(groups)}


def apparmor_profile(host: HostConfig, options: security.SecurityOptions) -> str:
    """The profile to confine with; "" for none, or where the host has no AppArmor."""
    if not security.apparmor_enabled():
        return ""
    if options.apparmor:
        return "" if options.apparmor == "unconfined" else options.apparmor
    return ""


def _linux(inputs: Inputs, options: security.SecurityOptions) -> Json:
    host = inputs.host
    nodes, rules = devices.oci(host)
    limits = resources.oci(host)
    limits["devices"] = rules
    parent = host.cgroup_parent or inputs.defaults.cgroup_parent
    linux: Json = {
        "namespaces": list(_namespaces(inputs)),
        "cgroupsPath": cgroup_path(parent, inputs.container.id),
        "resources": limits,
        "devices": nodes,
        "sysctl": sysctls(inputs),
        "rootfsPropagation": root_propagation(inputs.container.mounts),
        "maskedPaths": list(host.masked_paths or ()),
        "readonlyPaths": list(host.readonly_paths or ()),
    }
    if inputs.remapped:
        linux["uidMappings"] = [_mapping(m) for m in inputs.uid_map]
        linux["gidMappings"] = [_mapping(m) for m in inputs.gid_map]
    if label := inputs.container.mount_label:
        linux["mountLabel"] = label
    if profile := _seccomp(inputs, options):
        linux["seccomp"] = profile
    return linux


def _mapping(mapping: IdMapping) -> Json:
    return {
        "containerID": mapping.inside,
        "hostID": mapping.outside,
        "size": mapping.size,
    }


def cgroup_path(parent: str, container_id: str) -> str:
    """The cgroup of a container, below its parent."""
    return f"{parent.rstrip('/')}/{container_id}"


def wants_seccomp(defaults: Defaults, host: HostConfig, options: security.SecurityOptions) -> bool:
    """Whether system calls are to be filtered."""
    return _profile(defaults, host, options) != ""


def _profile(defaults: Defaults, host: HostConfig, options: security.SecurityOptions) -> str | None:
    """The text of the seccomp profile: None for the default one, "" for none at all."""
    if options.seccomp is not None:
        return options.seccomp
    return "" if host.privileged else defaults.seccomp_profile


def _seccomp(inputs: Inputs, options: security.SecurityOptions) -> Json | None:
    host = inputs.host
    text = _profile(inputs.defaults, host, options)
    if text is None:
        return seccomp.default(security.capabilities(host))
    return seccomp.custom(text, security.capabilities(host)) if text else None


def _namespaces(inputs: Inputs) -> Iterator[Json]:
    host = inputs.host
    yield {"type": "mount"}
    if inputs.network is not None:
        yield {"type": "network", **({"path": inputs.network} if inputs.network else {})}
    for kind, mode in (
        ("pid", modes.pid(host)),
        ("ipc", modes.ipc(host, inputs.defaults.ipc_mode)),
        ("uts", modes.uts(host)),
        ("cgroup", modes.cgroupns(host, inputs.defaults.cgroupns_mode)),
    ):
        if mode.kind == "container":
            yield {"type": kind, "path": inputs.joined[kind]}
        elif not mode.host:
            yield {"type": kind}
    if inputs.remapped:
        yield {"type": "user"}


def sysctls(inputs: Inputs) -> dict[str, str]:
    """The user's, checked against the namespaces, and Docker's two defaults for ``net``."""
    host = inputs.host
    check_sysctls(host, inputs.defaults.ipc_mode)
    found = dict(host.sysctls)
    own_network = inputs.network is not None and not modes.joins_network(host)
    if own_network and not inputs.remapped:
        # So that users other than root can ping, and listen on ports below 1024.
        found.setdefault("net.ipv4.ping_group_range", "0 2147483647")
        found.setdefault("net.ipv4.ip_unprivileged_port_start", "0")
    return found


_IPC_SYSCTLS = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)


def check_sysctls(host: HostConfig, ipc_default: str = "private") -> None:
    """Raises Invalid for sysctls that are not of a namespace which the container has."""
    for name in host.sysctls:
        if name.startswith("net."):
            if host.network_mode == "host":
                raise Invalid(f"sysctl '{name}' not allowed in host network namespace")
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if modes.ipc(host, ipc_default).host:
                raise Invalid(f"sysctl '{name}' not allowed in host ipc namespace")
        elif name in ("kernel.hostname", "kernel.domainname"):
            if name == "kernel.hostname" or modes.uts(host).host:
                raise Invalid(f"sysctl '{name}' conflicts with the container's host name")
        else:
            raise Invalid(f"sysctl '{name}' is not whitelisted")


def root_propagation(mounts: Sequence[MountPoint]) -> str:
    """What linux.rootfsPropagation must be, so that volumes propagate as they are to."""
    wanted = {m.propagation.removeprefix("r") for m in mounts}
    if "shared" in wanted:
        return "shared"
    return "rslave" if "slave" in wanted else "rprivate"


def _mounts(inputs: Inputs, options: security.SecurityOptions) -> Iterator[Json]:
    """Docker's own mounts, then the user's; a user's hides the default of the same place."""
    users = [*_user_mounts(inputs)]
    taken = {m["destination"] for m in users}
    below = tuple(f"{d}/" for d in ("/dev", "/proc", "/sys") if d in taken)
    for mount in _default_mounts(inputs, options):
        where = mount["destination"]
        if where not in taken and not where.startswith(below or ("\0",)):
            yield mount
    yield from users
    # Last, since a user may have mounted something on /etc.
    yield from (m for m in _files(inputs) if m["destination"] not in taken)


def _default_mounts(inputs: Inputs, options: security.SecurityOptions) -> Iterator[Json]:
    host = inputs.host
    access = "rw" if host.privileged else "ro"
    safe = ["nosuid", "noexec", "nodev"]
    yield _mount("/proc", "proc", "proc", safe)
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    yield _mount("/dev/pts", "devpts", "devpts", pts)
    if inputs.remapped and (inputs.network is None or modes.network_namespace(host)):
        # sysfs needs a network namespace that the user namespace owns.
        yield _mount("/sys", "bind", "/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"])
    else:
        yield _mount("/sys", "sysfs", "sysfs", [*safe, access])
    cgroups = "rw" if options.writable_cgroups else access
    yield _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, cgroups])
    ipc = modes.ipc(host, inputs.defaults.ipc_mode)
    if ipc.host:
        # A host need not have it mounted.
        if os.path.isdir("/dev/mqueue"):
            yield _mount("/dev/mqueue", "bind", "/dev/mqueue", ["rbind", *safe])
    else:
        yield _mount("/dev/mqueue", "mqueue", "mqueue", safe)
    yield from _shm(inputs, ipc)


def _files(inputs: Inputs) -> Iterator[Json]:
    """What tells a container of names."""
    container = inputs.container
    for where, source in (
        ("/etc/resolv.conf", container.resolv_conf_path),
        ("/etc/hostname", container.hostname_path),
        ("/etc/hosts", container.hosts_path),
    ):
        if source:
            words = ["ro"] if inputs.host.readonly_rootfs else []
            words += ["idmap"] if inputs.remapped else []
            yield _mount(where, "bind", source, ["rbind", "rprivate", *words])


def _shm(inputs: Inputs, ipc: modes.Mode) -> Iterator[Json]:
    safe = ["nosuid", "noexec", "nodev"]
    if ipc.kind == "none":
        return
    if ipc.host:
        yield _mount("/dev/shm", "bind", "/dev/shm", ["rbind", *safe])
    elif inputs.shm:
        yield _mount("/dev/shm", "bind", inputs.shm, ["rbind", "rprivate", *safe])
    else:
        size = inputs.host.shm_size or inputs.defaults.shm_size
        yield _mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={size}"])


def _user_mounts(inputs: Inputs) -> Iterator[Json]:
    tmpfs = [
        MountPoint("tmpfs", where, options=tuple(tmpfs_options(text.split(",") if text else [])))
        for where, text in inputs.host.tmpfs.items()
    ]
    for mount in in_order([*inputs.container.mounts, *tmpfs]):
        if mount.type == "tmpfs":
            yield _mount(mount.destination, "tmpfs", "tmpfs", ["rprivate", *mount.options])
            continue
        if mount.type == "image":
            yield from _image_mounts(inputs, mount)
            continue
        bind = "rbind" if mount.recursive else "bind"
        words = [bind, mount.propagation or "rprivate"]
        if inputs.remapped and (mount.type == "volume" or mount.owners_mapped):
            # What lies in a volume has the same owners for containers with and without a mapping.
            words.append("idmap")
        if not mount.rw:
            words.append("rro" if mount.recursive_ro else "ro")
        yield _mount(mount.destination, "bind", inputs.sources[mount.destination], words)


def _image_mounts(inputs: Inputs, mount: MountPoint) -> Iterator[Json]:
    """A read-only image: its recipe, made at the destination instead of at the root."""
    for entry in inputs.images[mount.destination]:
        where = posixpath.join(mount.destination, entry.target).rstrip("/")
        words = [*entry.options, "rprivate", *(["idmap"] if inputs.remapped else [])]
        yield _mount(where, entry.type, entry.source, words)


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> Json:
    return {
        "destination": destination,
        "type": kind,
        "source": source,
        "options": list(options),
    }
