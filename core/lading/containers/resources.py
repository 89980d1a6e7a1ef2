"""Limits of containers: checked as Docker checks them, and turned into OCI ``linux.resources``."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lading.errors import Invalid
from lading.model.docker import HostConfig, Resources, ThrottleDevice, Ulimit

MINIMUM_MEMORY = 6 << 20

Json = dict[str, Any]


def check(limits: Resources) -> None:
    """Raises Invalid for values out of range or contradicting each other."""
    _check_memory(limits)
    _check_cpu(limits)
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise Invalid("Range of blkio weight is from 10 to 1000")
    for weight in limits.blkio_weight_device:
        if not 10 <= weight.weight <= 1000:
            raise Invalid(f"invalid weight for device: {weight.path}:{weight.weight}")
    for ulimit in limits.ulimits:
        check_ulimit(ulimit)


def _check_memory(limits: Resources) -> None:
    memory, swap, reservation = limits.memory, limits.memory_swap, limits.memory_reservation
    if 0 != memory < MINIMUM_MEMORY:
        raise Invalid("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise Invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise Invalid(
            f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    if 0 != reservation < MINIMUM_MEMORY:
        raise Invalid("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise Invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if 0 != limits.kernel_memory < MINIMUM_MEMORY:
        raise Invalid("Minimum kernel memory limit allowed is 6MB")


def _check_cpu(limits: Resources) -> None:
    count = os.cpu_count() or 1
    if limits.nano_cpus:
        if limits.cpu_period:
            raise Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if limits.cpu_quota:
            raise Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        if not 10_000_000 <= limits.nano_cpus <= count * 1_000_000_000:
            raise Invalid(
                f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs "
                "available"
            )
    if limits.cpu_shares < 0:
        raise Invalid(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise Invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < limits.cpu_quota < 1000:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    _check_set(limits.cpuset_cpus, "cpus", "CPUs", _available("cpu"))
    _check_set(limits.cpuset_mems, "mems", "memory nodes", _available("node"))


def _check_set(text: str, what: str, noun: str, available: frozenset[int]) -> None:
    if not text:
        return
    try:
        wanted = parse_set(text)
    except ValueError:
        raise Invalid(f"Invalid value {text} for cpuset {what}") from None
    if not wanted <= available:
        shown = _show_set(available)
        raise Invalid(f"Requested {noun} are not available - requested {text}, available: {shown}")


def parse_set(text: str) -> set[int]:
    """``0-2,7`` as numbers. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if low < 0 or high < low or high > 8192:
            raise ValueError(part)
        found |= set(range(low, high + 1))
    return found


def _show_set(numbers: frozenset[int]) -> str:
    ordered = sorted(numbers)
    if len(ordered) > 1 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}-{ordered[-1]}"
    return ",".join(str(n) for n in ordered)


@cache
def _available(kind: str) -> frozenset[int]:
    try:
        return frozenset(parse_set(Path(f"/sys/devices/system/{kind}/online").read_text().strip()))
    except (OSError, ValueError):
        return frozenset(range(os.cpu_count() or 1)) if kind == "cpu" else frozenset({0})


_RLIMITS = {
    "core": "CORE",
    "cpu": "CPU",
    "data": "DATA",
    "fsize": "FSIZE",
    "locks": "LOCKS",
    "memlock": "MEMLOCK",
    "msgqueue": "MSGQUEUE",
    "nice": "NICE",
    "nofile": "NOFILE",
    "nproc": "NPROC",
    "rss": "RSS",
    "rtprio": "RTPRIO",
    "rttime": "RTTIME",
    "sigpending": "SIGPENDING",
    "stack": "STACK",
}


def check_ulimit(ulimit: Ulimit) -> None:
    """Raises Invalid for an unknown name or a soft limit above the hard one."""
    if ulimit.name not in _RLIMITS:
        raise Invalid(f"invalid ulimit type: {ulimit.name}", hint=", ".join(sorted(_RLIMITS)))
    if ulimit.hard != -1 and (ulimit.soft == -1 or ulimit.soft > ulimit.hard):
        raise Invalid(
            f"ulimit soft limit must be less than or equal to hard limit: "
            f"{ulimit.soft} > {ulimit.hard}"
        )


def parse_ulimits(rows: Mapping[str, str]) -> list[Ulimit]:
    """The daemon's defaults, ``name -> soft[:hard]``. Raises Invalid."""
    found = []
    for name, text in rows.items():
        soft, _, hard = text.partition(":")
        try:
            ulimit = Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
        except ValueError:
            raise Invalid(f"invalid ulimit argument: {name}={text}") from None
        check_ulimit(ulimit)
        found.append(ulimit)
    return found


def rlimits(defaults: Iterable[Ulimit], own: Iterable[Ulimit]) -> list[Json]:
    """OCI ``process.rlimits``: the daemon's defaults, overridden by the container's."""
    chosen = {u.name: u for u in [*defaults, *own]}
    return [
        {
            "type": f"RLIMIT_{_RLIMITS[u.name]}",
            "soft": _unlimited(u.soft),
            "hard": _unlimited(u.hard),
        }
        for u in chosen.values()
    ]


def _unlimited(value: int) -> int:
    return value if value >= 0 else resource.RLIM_INFINITY & 0xFFFF_FFFF_FFFF_FFFF


def oci(limits: HostConfig | Resources) -> Json:
    """OCI ``linux.resources`` without devices: only what is limited is in it."""
    found: Json = {}
    if memory := _memory(limits):
        found["memory"] = memory
    if cpu := _cpu(limits):
        found["cpu"] = cpu
    if limits.pids_limit:
        found["pids"] = {"limit": limits.pids_limit if limits.pids_limit > 0 else -1}
    if block := _block_io(limits):
        found["blockIO"] = block
    return found


def _memory(limits: Resources) -> Json:
    memory: Json = {}
    if limits.memory:
        memory["limit"] = limits.memory
        # As much swap again as memory, unless the user says otherwise.
        memory["swap"] = limits.memory_swap or 2 * limits.memory
    elif limits.memory_swap:
        memory["swap"] = limits.memory_swap
    if limits.memory_reservation:
        memory["reservation"] = limits.memory_reservation
    if limits.kernel_memory_tcp:
        memory["kernelTCP"] = limits.kernel_memory_tcp
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        memory["swappiness"] = limits.memory_swappiness
    if limits.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(limits: Resources) -> Json:
    cpu: Json = {}
    if limits.cpu_shares:
        cpu["shares"] = limits.cpu_shares
    if limits.nano_cpus:
        cpu["period"], cpu["quota"] = 100_000, limits.nano_cpus // 10_000
    if limits.cpu_period:
        cpu["period"] = limits.cpu_period
    if limits.cpu_quota:
        cpu["quota"] = limits.cpu_quota
    if limits.cpu_realtime_period:
        cpu["realtimePeriod"] = limits.cpu_realtime_period
    if limits.cpu_realtime_runtime:
        cpu["realtimeRuntime"] = limits.cpu_realtime_runtime
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    return cpu


def _block_io(limits: Resources) -> Json:
    block: Json = {}
    if limits.blkio_weight:
        block["weight"] = limits.blkio_weight
    if limits.blkio_weight_device:
        block["weightDevice"] = [
            {**_device_number(w.path), "weight": w.weight} for w in limits.blkio_weight_device
        ]
    for key, rows in (
        ("throttleReadBpsDevice", limits.blkio_device_read_bps),
        ("throttleWriteBpsDevice", limits.blkio_device_write_bps),
        ("throttleReadIOPSDevice", limits.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", limits.blkio_device_write_iops),
    ):
        if rows:
            block[key] = [_throttle(row) for row in rows]
    return block


def _throttle(row: ThrottleDevice) -> Json:
    return {**_device_number(row.path), "rate": row.rate}


def _device_number(path: str) -> Json:
    try:
        status = os.stat(path)
    except OSError as error:
        raise Invalid(f'device "{path}": {error.strerror}') from error
    if not stat.S_ISBLK(status.st_mode):
        raise Invalid(f'device "{path}": not a block device')
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
