"""Modes of namespaces: ``host``, ``private``, ``container:ID`` and their kin."""

from __future__ import annotations

from dataclasses import dataclass

from lading.errors import Conflict, Invalid
from lading.model.docker import ContainerConfig, HostConfig

CONTAINER, NAMESPACE = "container:", "ns:"


@dataclass(frozen=True, slots=True)
class Mode:
    """How one kind of namespace is got: ``container`` names the one whose is shared."""

    kind: str
    container: str = ""

    @property
    def host(self) -> bool:
        """Whether there is no namespace of its own."""
        return self.kind == "host"


def parse(text: str, member: str, allowed: frozenset[str], default: str = "private") -> Mode:
    """Read a mode; ``member`` is what the error calls it. Raises Invalid."""
    if text.startswith(CONTAINER) and CONTAINER in allowed:
        name = text.removeprefix(CONTAINER)
        if not name:
            raise Invalid(f"invalid {member} mode: {text}")
        return Mode("container", name)
    kind = text or default
    if kind not in allowed:
        raise Invalid(f"invalid {member} mode: {text}")
    return Mode(kind)


def pid(host: HostConfig) -> Mode:
    """``--pid``."""
    return parse(host.pid_mode, "PID", frozenset({"private", "host", CONTAINER}))


def ipc(host: HostConfig, default: str = "private") -> Mode:
    """``--ipc``; ``none`` has no /dev/shm, only ``shareable`` may be joined by others."""
    allowed = frozenset({"private", "shareable", "none", "host", CONTAINER})
    return parse(host.ipc_mode, "IPC", allowed, default)


def uts(host: HostConfig) -> Mode:
    """``--uts``."""
    return parse(host.uts_mode, "UTS", frozenset({"private", "host"}))


def userns(host: HostConfig) -> Mode:
    """``--userns``; private here means: as the daemon is configured."""
    return parse(host.userns_mode, "USER", frozenset({"private", "host"}))


def cgroupns(host: HostConfig, default: str = "private") -> Mode:
    """``--cgroupns``; the host's for privileged containers unless told otherwise."""
    default = "host" if host.privileged else default
    return parse(host.cgroupns_mode, "cgroup namespace", frozenset({"private", "host"}), default)


def network_container(host: HostConfig) -> str:
    """The container whose network is shared, or ""."""
    mode = host.network_mode
    return mode.removeprefix(CONTAINER) if mode.startswith(CONTAINER) else ""


def network_namespace(host: HostConfig) -> str:
    """The path of the network namespace that was made elsewhere, or ""."""
    mode = host.network_mode
    return mode.removeprefix(NAMESPACE) if mode.startswith(NAMESPACE) else ""


def joins_network(host: HostConfig) -> bool:
    """Whether the network namespace is not the container's own."""
    return bool(network_container(host) or network_namespace(host))


def _check_namespace(config: ContainerConfig, host: HostConfig) -> None:
    path = network_namespace(host)
    if not path.startswith("/"):
        raise Invalid(f'invalid network mode: {host.network_mode}: it takes "ns:" and a path')
    contradictions = {
        "port publishing": bool(host.port_bindings or host.publish_all_ports),
        "links": bool(host.links),
        "mac-address": bool(config.mac_address),
    }
    for text, wrong in contradictions.items():
        if wrong:
            raise Invalid(
                f"conflicting options: {text} and a network namespace made elsewhere "
                f"({host.network_mode}): its interfaces are not the engine's"
            )


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Raises Invalid for wrong modes, and for options that contradict them."""
    pid(host), ipc(host), uts(host), userns(host), cgroupns(host)
    shared = network_container(host)
    if host.network_mode == CONTAINER:
        raise Invalid("invalid network mode: container: needs a name or id")
    if uts(host).host and config.hostname:
        raise Invalid("conflicting options: hostname and the UTS mode")
    if host.network_mode.startswith(NAMESPACE):
        _check_namespace(config, host)
    if not (shared or host.network_mode == "host"):
        return
    what = "host" if host.network_mode == "host" else "container"
    contradictions = {
        "hostname and the network mode": bool(shared and config.hostname),
        "host type networking can't be used with links. This would result in undefined behavior": (
            what == "host" and bool(host.links)
        ),
        "container type network can't be used with links. This would result in undefined "
        "behavior": bool(shared and host.links),
        "dns and the network mode": bool(shared and host.dns),
        "custom host-to-IP mapping and the network mode": bool(shared and host.extra_hosts),
        "mac-address and the network mode": bool(config.mac_address),
        "port publishing and the container type network mode": bool(
            shared and (host.port_bindings or host.publish_all_ports)
        ),
        "port exposing and the container type network mode": bool(shared and config.exposed_ports),
    }
    for text, wrong in contradictions.items():
        if wrong:
            raise Invalid(f"conflicting options: {text}")


def check_joinable(what: str, name: str, *, running: bool, restarting: bool = False) -> None:
    """Raises Conflict unless the container whose namespace is to be joined has one now."""
    if restarting:
        raise Conflict(f"Container {name} is restarting, wait until the container is running")
    if not running:
        raise Conflict(f"cannot join {what} of a non running container: {name}")
