"""What the network core knows, as values: networks, endpoints, sandboxes, published ports.

A *network* is made by a backend (its ``driver``) or is one of the two that need none: ``host`` and
``null``. A container *joins* networks; while it runs it has a *sandbox*: its network namespace with
one *endpoint* (interface) per joined network. The structs are the JSON in the metadata too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from lading.hooks import network as contract
from lading.model.docker import ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig
from lading.model.docker_networks import IPAMConfig

#: Drivers of the core's own; all others are network backends.
HOST, NULL = "host", "null"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of the records."""


class Network(Record, frozen=True):
    """A network as ``inspect`` shows it; ``ranges`` are its subnets, always with gateways."""

    id: str
    name: str
    created: str
    driver: str
    ranges: tuple[IPAMConfig, ...] = ()
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] = {}
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    predefined: bool = False
    default: bool = False

    @property
    def has_backend(self) -> bool:
        """Whether a backend makes it: not so for ``host`` and ``none``."""
        return self.driver not in (HOST, NULL)

    def gateway(self, version: int = 4) -> str:
        """The host's address of that IP version in it, or ""."""
        for found in self.ranges:
            if ipaddress.ip_network(found.subnet).version == version:
                return found.gateway
        return ""

    def for_backend(self) -> contract.Network:
        """The value that hooks take."""
        subnets = tuple(contract.Subnet(r.subnet, r.gateway) for r in self.ranges)
        return contract.Network(self.id, self.name, subnets, self.internal, dict(self.options))


class EndpointState(Record, frozen=True):
    """A container's place in one network.

    Of a container that does not run, only ``network_id``, ``network_name`` and ``settings`` have a
    value. ``ifname`` is the interface's name inside. ``dns_names`` are what the network's name
    server answers for it, ``settings`` what the user asked for.
    """

    network_id: str
    network_name: str
    settings: EndpointSettings = EndpointSettings()
    id: str = ""
    ifname: str = ""
    mac: str = ""
    ip: str = ""
    prefix: int = 0
    gateway: str = ""
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    dns_names: tuple[str, ...] = ()
    default_route: bool = False

    def for_backend(self) -> contract.Endpoint:
        """The value that hooks take."""
        pairs = ((self.ip, self.prefix), (self.ip6, self.prefix6))
        addresses = tuple(f"{ip}/{prefix}" for ip, prefix in pairs if ip)
        return contract.Endpoint(self.id, self.ifname, self.mac, addresses, self.default_route)


class PublishedPort(Record, frozen=True):
    """A container's port and where the host has it.

    ``host_ip`` is "0.0.0.0" or "::" for every address. A port that is exposed and not published
    has ``host_port`` 0.
    """

    container_port: int
    protocol: str
    host_ip: str = ""
    host_port: int = 0


class ContainerNetworks(Record, frozen=True):
    """What ``NetworkSettings`` of a container shows.

    ``sandbox_id`` and ``sandbox_key`` are "" for a container that does not run.
    """

    endpoints: tuple[EndpointState, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    sandbox_id: str = ""
    sandbox_key: str = ""

    @property
    def default(self) -> EndpointState | None:
        """The endpoint on the default bridge, whose addresses old clients read at the top."""
        return next((e for e in self.endpoints if e.network_name == "bridge"), None)


class Member(Record, frozen=True):
    """A running container on a network, as ``network inspect`` lists it; addresses are CIDR."""

    container: str
    name: str
    endpoint: str
    mac: str
    ipv4: str
    ipv6: str


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to ``create``."""

    id: str
    warning: str = ""


class Subject(Protocol):
    """A container, as far as networks care; the engine's record is one."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def config(self) -> ContainerConfig: ...
    @property
    def host_config(self) -> HostConfig: ...
    @property
    def networking(self) -> NetworkingConfig: ...


@dataclass(frozen=True, slots=True)
class Link:
    """A running container that another is linked to (``--link NAME:ALIAS``)."""

    container: str
    name: str
    alias: str
    config: ContainerConfig


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network of a container that is about to run.

    ``netns_path`` is what ``config.json`` names; None: the host's namespace. ``deferred``: there is
    no namespace yet since the container's own user namespace must own it; the caller makes the
    container without starting it and calls :meth:`Networks.attach`. ``held`` are named
    descriptors that keep the published ports: the monitor gets them, this process's own stay open
    until ``release``. ``hosts`` and ``resolv_conf`` are contents for the container's files, empty
    when another container's are shared. ``environment`` is what links add (``DB_PORT=...``).
    """

    container: str
    netns_path: str | None
    endpoints: Sequence[EndpointState] = ()
    ports: Sequence[PublishedPort] = ()
    held: Mapping[str, int] = field(default_factory=dict)
    hosts: str = ""
    resolv_conf: str = ""
    environment: Sequence[str] = ()
    deferred: bool = False
    warnings: Sequence[str] = field(default_factory=tuple)
