"""What is wrong with a request to create, found before anything is made."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from lading.containers import devices, modes, policy, resources, security, signals, spec
from lading.errors import Invalid
from lading.model.docker import ContainerConfig, HealthConfig, HostConfig

_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
_PORT = re.compile(r"(\d{1,5})(-(\d{1,5}))?(/(tcp|udp|sctp))?")
_MILLISECOND = 1_000_000

#: Drivers that write logs, and the options they know.
LOG_DRIVERS = {
    "json-file": frozenset(
        {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}
    ),
    "local": frozenset({"max-size", "max-file", "compress"}),
    "none": frozenset[str](),
}


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Raises Invalid for the first mistake."""
    check_merged(config)
    policy.check(host.restart_policy, host)
    modes.check(config, host)
    resources.check(host)
    devices.check(host)
    security.parse_options(host.security_opt)
    security.capabilities(host)
    spec.check_sysctls(host)
    _check_host(host)
    _check_ports(config, host)
    check_log(host.log_config.type, host.log_config.config)


def check_merged(config: ContainerConfig) -> None:
    """Raises Invalid for what the image says wrong, or together with the user."""
    _check_config(config)
    _check_health(config.healthcheck)


def _check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an "
            "absolute path"
        )
    for row in config.env:
        if not row.partition("=")[0]:
            raise Invalid(f"invalid environment variable: {row}")
        if "\0" in row:
            raise Invalid(f"invalid environment variable: {row!r}")
    if config.hostname and (len(config.hostname) > 63 or not _HOSTNAME.fullmatch(config.hostname)):
        raise Invalid(f"invalid hostname format: {config.hostname}")
    if config.mac_address and not _MAC.fullmatch(config.mac_address):
        raise Invalid(f"invalid MAC address: {config.mac_address}")
    if config.stop_signal:
        signals.number(config.stop_signal)
    if any("\0" in word for word in (*(config.cmd or ()), *(config.entrypoint or ()))):
        raise Invalid("invalid command: it contains a NUL character")


def _check_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise Invalid(f"unknown healthcheck type {health.test[0]!r}")
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if 0 != value < _MILLISECOND:
            raise Invalid(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise Invalid("Retries in Healthcheck cannot be negative")


def _check_host(host: HostConfig) -> None:
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    for row in host.extra_hosts:
        _check_extra_host(row)
    for address in host.dns:
        _check_address(address, "invalid DNS address")
    for name in host.annotations:
        if not name:
            raise Invalid("invalid Annotations: the empty string is not permitted as a name")


def _check_extra_host(row: str) -> None:
    separator = "=" if "=" in row else ":"
    name, found, address = row.partition(separator)
    if not name or not found or not address:
        raise Invalid(f'bad format for add-host: "{row}"')
    if address != "host-gateway":
        _check_address(address.strip("[]"), f'invalid IP address in add-host: "{address}"', False)


def _check_address(text: str, message: str, show: bool = True) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise Invalid(f"{message}: {text}" if show else message) from None


def _check_ports(config: ContainerConfig, host: HostConfig) -> None:
    for port in (*config.exposed_ports, *host.port_bindings):
        if not _is_port(port):
            raise Invalid(f'invalid port specification: "{port}"')
    for bindings in host.port_bindings.values():
        for binding in bindings:
            if binding.host_port and not _is_port(binding.host_port):
                raise Invalid(f'invalid port specification: "{binding.host_port}"')
            if binding.host_ip:
                _check_address(binding.host_ip, "invalid IP address in port binding")


def _is_port(text: str) -> bool:
    match = _PORT.fullmatch(text)
    if match is None:
        return False
    first, last = int(match[1]), int(match[3] or match[1])
    return first <= last <= 65535


def check_log(driver: str, options: Iterable[str]) -> None:
    """Raises Invalid for an unknown log driver or option."""
    if not driver:
        return
    if driver not in LOG_DRIVERS:
        raise Invalid(
            f"logger: no log driver named '{driver}' is registered",
            hint=f"drivers: {', '.join(LOG_DRIVERS)}",
        )
    for option in options:
        if option not in LOG_DRIVERS[driver] and option not in ("mode", "max-buffer-size"):
            raise Invalid(f"unknown log opt '{option}' for {driver} log driver")
