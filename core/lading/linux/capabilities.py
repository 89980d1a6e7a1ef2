"""Capabilities by name and number (capabilities(7), include/uapi/linux/capability.h)."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import cache

from lading.linux import syscalls

#: In the order of their numbers.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip

_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> int:
    """The bit mask of names like ``CAP_CHOWN``. Raises OSError EINVAL for an unknown one."""
    bits = 0
    for name in names:
        number = _NUMBERS.get(name.upper())
        if number is None:
            raise OSError(errno.EINVAL, f'unknown capability "{name}"')
        bits |= 1 << number
    return bits


def names(bits: int) -> list[str]:
    """The names in a mask."""
    return [name for name, number in _NUMBERS.items() if bits >> number & 1]


@cache
def held() -> int:
    """What this process has permitted, as a mask; read once, before anything is dropped."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0


@cache
def lacking() -> frozenset[str]:
    """Those of the kernel's that this process could not give to anybody."""
    return frozenset(names((1 << (last() + 1)) - 1 & ~held()))


@cache
def last() -> int:
    """The number of the kernel's last capability."""
    try:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            return int(file.read())
    except OSError:
        return len(NAMES) - 1


def drop_bounding(keep: int, highest: int) -> None:
    """Remove from the bounding set all capabilities that are not in ``keep``."""
    for number in range(highest + 1):
        if not keep >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)


def raise_ambient(bits: int) -> None:
    """Make these the ambient set; they must be permitted and inheritable already."""
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
