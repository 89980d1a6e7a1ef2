"""OCI ``linux.resources`` as writes to control files, for both versions of cgroups.

Each function yields (hierarchy, file, text) in an order that the kernel accepts. ``value`` reads a
file's present text ("" when there is none). Sources: Documentation/admin-guide/cgroup-v1/ and
cgroup-v2.rst in the kernel; OCI runtime-spec, config-linux.md, "Control groups".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Setting = tuple[str, str, str]
Value = Callable[[str, str], str]


def legacy(resources: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    """Version 1."""
    yield from _legacy_memory(resources.get("memory") or {}, value)
    cpu = resources.get("cpu") or {}
    for member, name in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if cpu.get(member):
            yield "cpu", name, str(cpu[member])
    for member, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(member):
            yield "cpuset", name, cpu[member]
    if limit := (resources.get("pids") or {}).get("limit"):
        yield "pids", "pids.max", "max" if limit < 0 else str(limit)
    yield from _legacy_block(resources.get("blockIO") or {}, value)
    for page in resources.get("hugepageLimits") or ():
        yield "hugetlb", f"hugetlb.{page['pageSize']}.limit_in_bytes", str(page["limit"])


def _legacy_memory(memory: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    limit, swap = memory.get("limit"), memory.get("swap")
    writes: list[Setting] = []
    if limit:
        writes.append(("memory", "memory.limit_in_bytes", str(limit)))
    if swap and value("memory", "memory.memsw.limit_in_bytes"):
        writes.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
        # memsw may never be below the limit: when both rise, it goes first.
        present = value("memory", "memory.memsw.limit_in_bytes")
        if limit and (swap < 0 or limit > int(present)):
            writes.reverse()
    yield from writes
    if reservation := memory.get("reservation"):
        yield "memory", "memory.soft_limit_in_bytes", str(reservation)
    if (swappiness := memory.get("swappiness")) is not None and 0 <= swappiness <= 100:
        yield "memory", "memory.swappiness", str(swappiness)
    if memory.get("disableOOMKiller"):
        yield "memory", "memory.oom_control", "1"


_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def _legacy_block(block: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    weight_file = "blkio.bfq.weight" if value("blkio", "blkio.bfq.weight") else "blkio.weight"
    if weight := block.get("weight"):
        yield "blkio", weight_file, str(weight)
    for device in block.get("weightDevice") or ():
        name = f"{weight_file}_device"
        yield "blkio", name, f"{device['major']}:{device['minor']} {device['weight']}"
    for member, name, _ in _THROTTLES:
        for device in block.get(member) or ():
            yield "blkio", name, f"{device['major']}:{device['minor']} {device['rate']}"


def unified(resources: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    """Version 2."""
    yield from _unified_memory(resources.get("memory") or {}, value)
    cpu = resources.get("cpu") or {}
    if shares := cpu.get("shares"):
        yield "", "cpu.weight", str(shares_to_weight(shares))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or 0
        yield "", "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"
    for member, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(member):
            yield "", name, cpu[member]
    if limit := (resources.get("pids") or {}).get("limit"):
        yield "", "pids.max", "max" if limit < 0 else str(limit)
    block = resources.get("blockIO") or {}
    if weight := block.get("weight"):
        name = "io.bfq.weight" if value("", "io.bfq.weight") else "io.weight"
        yield "", name, str(weight if name == "io.bfq.weight" else blkio_to_weight(weight))
    for member, _, key in _THROTTLES:
        for device in block.get(member) or ():
            yield "", "io.max", f"{device['major']}:{device['minor']} {key}={device['rate']}"
    for page in resources.get("hugepageLimits") or ():
        yield "", f"hugetlb.{page['pageSize']}.max", str(page["limit"])
    for name, text in (resources.get("unified") or {}).items():
        yield "", name, text


def _unified_memory(memory: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if swap and value("", "memory.swap.max"):
        # Version 1 counts memory and swap together, version 2 swap alone.
        alone = "max" if swap < 0 else str(max(0, swap - (limit or 0)))
        if swap < 0 or limit:
            yield "", "memory.swap.max", alone
    if limit:
        yield "", "memory.max", "max" if limit < 0 else str(limit)
    if reservation := memory.get("reservation"):
        yield "", "memory.low", "max" if reservation < 0 else str(reservation)


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2..262144) on the scale of cpu.weight (1..10000), as systemd and runc map it."""
    bounded = min(max(shares, 2), 262144)
    return 1 + (bounded - 2) * 9999 // 262142


def blkio_to_weight(weight: int) -> int:
    """blkio.weight (10..1000) on the scale of io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990
