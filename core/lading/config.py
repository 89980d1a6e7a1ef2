"""The daemon's configuration: layered TOML with the names of dockerd's options.

Layers, later ones win key by key (tables merge, lists replace)::

    /usr/lib/lading/lading.toml, /usr/lib/lading/lading.toml.d/*.toml     the vendor's
    /etc/lading/lading.toml,     /etc/lading/lading.toml.d/*.toml         the admin's
    command line

A drop-in of the admin's hides one of the vendor's with the same file name; a symlink to
``/dev/null`` thus removes it. ``--config-file`` replaces ``/etc/lading/lading.toml`` and its
drop-ins (the directory beside it is read instead). :attr:`Loaded.origin` says which file set what.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lading.errors import Invalid

VENDOR = Path("/usr/lib/lading/lading.toml")
ADMIN = Path("/etc/lading/lading.toml")


class Table(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    """Base of the config's tables: kebab-case keys, unknown ones refused."""


class Plugins(Table, frozen=True):
    """``[plugins]``: what may be loaded; see :mod:`lading.load_policy`."""

    allow: list[str] | None = None
    require_root_owned: bool = False
    pins: dict[str, str] = {}


class AddressPool(Table, frozen=True):
    """``[[default-address-pools]]``: a range that networks without a subnet take theirs from."""

    base: str
    size: int


class Registry(Table, frozen=True):
    """``[registry."host:port"]``: how one registry is reached."""

    transport: str = ""
    insecure: bool | None = None
    mirrors: list[str] = []
    blocked: bool = False


class Settings(Table, frozen=True):
    """All settings of ``ladingd``; sizes in bytes, times in seconds."""

    hosts: list[str] = msgspec.field(default_factory=lambda: ["unix:///run/lading.sock"])
    group: str = "docker"
    data_root: str = "/var/lib/lading"
    exec_root: str = "/run/lading"
    pidfile: str = "/run/lading.pid"
    debug: bool = False
    log_level: str = "info"

    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    insecure_tcp: bool = False

    default_runtime: str = "native"
    storage_driver: str = "overlay"
    storage_opts: list[str] = []
    extensions: list[str] = []
    isolation: dict[str, dict[str, Any]] = {}
    filesystem: dict[str, dict[str, Any]] = {}
    network: dict[str, dict[str, Any]] = {}
    extension: dict[str, dict[str, Any]] = {}
    plugins: Plugins = Plugins()

    bridge: str = "lading0"
    bip: str = ""
    fixed_cidr: str = ""
    default_address_pools: list[AddressPool] = []
    icc: bool = True
    iptables: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    userland_proxy: bool = True
    ip: str = ""
    mtu: int = 0
    network_pool_size: int = 8
    dns: list[str] = []
    dns_search: list[str] = []
    dns_opts: list[str] = []
    host_gateway_ip: str = ""

    registry: dict[str, Registry] = {}
    registry_mirrors: list[str] = []
    insecure_registries: list[str] = []
    registry_timeout: float = 60.0
    registry_certificates: list[str] = msgspec.field(
        default_factory=lambda: ["/etc/lading/certs.d", "/etc/docker/certs.d"]
    )
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5

    userns_remap: str = ""
    cgroup_parent: str = ""
    default_shm_size: int = 64 << 20
    default_ulimits: dict[str, str] = {}
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = "private"
    seccomp_profile: str = ""
    no_new_privileges: bool = False
    init: bool = False
    labels: list[str] = []
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}
    shutdown_timeout: int = 15
    hook_timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings that hold, and for each dotted key that was set the layer that set it."""

    settings: Settings
    origin: Mapping[str, str]


def load(
    flags: Mapping[str, Any], config_file: Path | None = None, vendor: Path = VENDOR
) -> Loaded:
    """Read all layers. ``flags`` has kebab-case keys and only what was given.

    Raises Invalid, naming the file and the key, for bad TOML, unknown keys and wrong types.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in _layers(vendor, config_file or ADMIN, required=config_file is not None):
        layer = _read(path)
        try:
            msgspec.convert(layer, Settings)
        except msgspec.ValidationError as error:
            raise Invalid(f'config file "{path}": {error}') from error
        _merge(merged, layer, str(path), origin)
    _merge(merged, dict(flags), "command line", origin)
    try:
        return Loaded(msgspec.convert(merged, Settings), origin)
    except msgspec.ValidationError as error:
        raise Invalid(f"configuration: {error}") from error


def _layers(vendor: Path, admin: Path, *, required: bool) -> list[Path]:
    if required and not admin.is_file():
        raise Invalid(f'config file "{admin}" does not exist')
    admin_drop_ins = _drop_ins(admin)
    hidden = {p.name for p in admin_drop_ins}
    vendor_drop_ins = [p for p in _drop_ins(vendor) if p.name not in hidden]
    ordered = [vendor, *vendor_drop_ins, admin, *admin_drop_ins]
    return [p for p in ordered if p.is_file()]


def _drop_ins(main: Path) -> list[Path]:
    return sorted(main.with_name(main.name + ".d").glob("*.toml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f'config file "{path}": {error}') from error


def _merge(
    into: dict[str, Any],
    layer: Mapping[str, Any],
    source: str,
    origin: dict[str, str],
    prefix: str = "",
) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict):
            _merge(into.setdefault(key, {}), value, source, origin, f"{prefix}{key}.")
        else:
            into[key] = value
            origin[f"{prefix}{key}"] = source
