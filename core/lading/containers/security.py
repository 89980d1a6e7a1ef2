"""What a container's processes may do: capabilities, security options, hidden paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lading.errors import Invalid
from lading.linux import capabilities as linux_capabilities
from lading.model.docker import HostConfig

#: Docker's default set.
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

#: All of linux/capability.h, by number.
_ALL_TEXT = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_ALL = _ALL_TEXT.split()

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """``--security-opt``, read. ``seccomp`` is None for the default, "" for unconfined, or JSON."""

    no_new_privileges: bool = False
    seccomp: str | None = None
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    writable_cgroups: bool = False


def parse_options(options: Sequence[str], *, no_new_privileges: bool = False) -> SecurityOptions:
    """Read the options. Raises Invalid for unknown ones."""
    seccomp: str | None = None
    apparmor, labels, writable = "", [], False
    for option in options:
        key, equals, value = option.partition("=")
        if not equals and option != "no-new-privileges":
            # The separator of 2014; a JSON profile has colons, yet always comes with "=".
            key, equals, value = option.partition(":")
        if key == "no-new-privileges":
            no_new_privileges = _boolean(key, value) if equals else True
        elif not equals:
            raise Invalid(f'Invalid --security-opt 1: "{option}"')
        elif key == "label":
            labels.append(value)
        elif key == "apparmor":
            apparmor = value
        elif key == "seccomp":
            seccomp = _seccomp(value)
        elif key == "writable-cgroups":
            writable = _boolean(key, value)
        else:
            raise Invalid(f'Invalid --security-opt 2: "{option}"')
    return SecurityOptions(no_new_privileges, seccomp, apparmor, tuple(labels), writable)


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise Invalid(f'Invalid --security-opt 2: "{key}={value}"')


def _seccomp(value: str) -> str | None:
    if value == "unconfined":
        return ""
    if value == "builtin":
        return None
    try:
        profile = json.loads(value)
    except ValueError as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise Invalid("Decoding seccomp profile failed: it has no defaultAction")
    return value


@cache
def all_capabilities() -> tuple[str, ...]:
    """Every capability of this kernel."""
    try:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError:
        last = len(_ALL) - 1
    return tuple(f"CAP_{name}" for name in _ALL[: last + 1])


def _normalised(names: Sequence[str], member: str) -> list[str]:
    found = []
    for name in names:
        full = name.upper()
        if full != "ALL":
            full = full if full.startswith("CAP_") else f"CAP_{full}"
            if full not in all_capabilities():
                raise Invalid(f'invalid {member}: unknown capability: "{full}"')
        found.append(full)
    return found


def capabilities(host: HostConfig, *, privileged: bool | None = None) -> list[str]:
    """The capability set of a container, or of a privileged exec in it. Raises Invalid."""
    add = _normalised(host.cap_add, "CapAdd")
    drop = _normalised(host.cap_drop, "CapDrop")
    if host.privileged if privileged is None else privileged:
        return list(all_capabilities())
    if "ALL" in add:
        base: Sequence[str] = all_capabilities()
    elif "ALL" in drop:
        return [c for c in dict.fromkeys(add) if c != "ALL"]
    else:
        base = [c for c in DEFAULT_CAPABILITIES if c in all_capabilities()]
    kept = [c for c in base if c not in drop]
    return kept + [c for c in dict.fromkeys(add) if c not in kept and c != "ALL"]


def oci_capabilities(names: Sequence[str], *, uid: int) -> dict[str, list[str]]:
    """OCI ``process.capabilities``; as execve(2) would leave them for this user.

    Those that the daemon itself lacks are left out: no runtime could give them.
    """
    lacking = linux_capabilities.lacking()
    names = [name for name in names if name not in lacking]
    if uid == 0:
        return {"bounding": [*names], "effective": [*names], "permitted": [*names]}
    return {"bounding": [*names], "effective": [], "permitted": []}


def hidden_paths(host: HostConfig) -> tuple[list[str] | None, list[str] | None]:
    """Masked and read-only paths that a container is created with; none when privileged."""
    if host.privileged:
        return None, None
    masked = list(MASKED_PATHS) if host.masked_paths is None else host.masked_paths
    read_only = list(READONLY_PATHS) if host.readonly_paths is None else host.readonly_paths
    return masked, read_only


@cache
def apparmor_enabled() -> bool:
    """Whether the host confines with AppArmor."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


@cache
def selinux_enabled() -> bool:
    """Whether the host confines with SELinux."""
    return Path("/sys/fs/selinux/enforce").exists()


def process_label(options: SecurityOptions, host: HostConfig) -> str:
    """The SELinux label of the processes; "" where SELinux is off or disabled for it."""
    if not selinux_enabled() or host.privileged or "disable" in options.labels:
        return ""
    parts: dict[str, Any] = {"user": "system_u", "role": "system_r", "type": "container_t"}
    parts["level"] = "s0"
    for label in options.labels:
        key, colon, value = label.partition(":")
        if not colon or key not in parts:
            raise Invalid(f'Invalid --security-opt 2: "label={label}"')
        parts[key] = value
    return ":".join(parts.values())
