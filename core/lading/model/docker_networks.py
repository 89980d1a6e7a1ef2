"""Bodies of Docker's requests about networks, beside :mod:`lading.model.docker`."""

from __future__ import annotations

from msgspec import field

from lading.model.body import Body
from lading.model.docker import EndpointSettings


class IPAMConfig(Body, frozen=True):
    """One address range of a network."""

    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAM(Body, frozen=True):
    """Address management of a network."""

    driver: str = ""
    config: list[IPAMConfig] = []
    options: dict[str, str] = {}


class ConfigReference(Body, frozen=True):
    """The network whose configuration is used."""

    network: str = ""


class NetworkCreate(Body, frozen=True):
    """``POST /networks/create``."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: IPAM = field(default=IPAM(), name="IPAM")
    enable_ipv4: bool = field(default=True, name="EnableIPv4")
    enable_ipv6: bool = field(default=False, name="EnableIPv6")
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class NetworkConnect(Body, frozen=True):
    """``POST /networks/{id}/connect``."""

    container: str = ""
    endpoint_config: EndpointSettings = EndpointSettings()


class NetworkDisconnect(Body, frozen=True):
    """``POST /networks/{id}/disconnect``."""

    container: str = ""
    force: bool = False
