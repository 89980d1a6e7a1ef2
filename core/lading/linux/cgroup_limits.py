"""OCI ``linux.resources`` as writes to control files, for both versions of cgroups.

Each function yields (hierarchy, file, text) in an order that the kernel accepts. ``value`` reads a
file's present text ("" when there is none). Sources: Documentation/admin-guide/cgroup-v1/ and
cgroup-v2.rst in the kernel; OCI runtime-spec, config-linux.md, "Control groups".
"""

from __future__ import annotations

import math
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
    for member, name in (("burst", "cpu.cfs_burst_us"), ("idle", "cpu.idle")):
        if cpu.get(member) is not None:
            yield "cpu", name, str(cpu[member])
    for member, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(member):
            yield "cpuset", name, cpu[member]
    if limit := (resources.get("pids") or {}).get("limit"):
        yield "pids", "pids.max", _or_max(limit)
    yield from _legacy_block(resources.get("blockIO") or {}, value)
    for page in resources.get("hugepageLimits") or ():
        yield "hugetlb", f"hugetlb.{page['pageSize']}.limit_in_bytes", str(page["limit"])
    yield from _legacy_network(resources.get("network") or {})
    yield from _rdma("rdma", resources)


def _legacy_network(network: Mapping[str, Any]) -> Iterator[Setting]:
    if (number := network.get("classID")) is not None:
        yield "net_cls", "net_cls.classid", str(number)
    for row in network.get("priorities") or ():
        yield "net_prio", "net_prio.ifpriomap", f"{row['name']} {row['priority']}"


def _rdma(hierarchy: str, resources: Mapping[str, Any]) -> Iterator[Setting]:
    names = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
    for device, row in (resources.get("rdma") or {}).items():
        limits = " ".join(f"{name}={row[member]}" for member, name in names if member in row)
        yield hierarchy, "rdma.max", f"{device} {limits}"


def _or_max(limit: int) -> str:
    return "max" if limit < 0 else str(limit)


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
    if memory.get("kernelTCP"):
        yield "memory", "memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"])
    disabled = "oom_kill_disable 1" in value("memory", "memory.oom_control")
    if memory.get("disableOOMKiller", disabled) != disabled:
        yield "memory", "memory.oom_control", "0" if disabled else "1"


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
    yield from _unified_cpu(resources.get("cpu") or {}, value)
    if limit := (resources.get("pids") or {}).get("limit"):
        yield "", "pids.max", _or_max(limit)
    yield from _unified_block(resources.get("blockIO") or {}, value)
    for page in resources.get("hugepageLimits") or ():
        yield "", f"hugetlb.{page['pageSize']}.max", str(page["limit"])
    # There are no such controllers in version 2: naming one makes the caller refuse it.
    yield from _legacy_network(resources.get("network") or {})
    yield from _rdma("", resources)
    for name, text in (resources.get("unified") or {}).items():
        yield "", name, text


def _unified_cpu(cpu: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    if shares := cpu.get("shares"):
        yield "", "cpu.weight", str(shares_to_weight(shares))
    if cpu.get("quota") or cpu.get("period"):
        present = (value("", "cpu.max") or "max 100000").split()
        quota = cpu.get("quota")
        limit = _or_max(quota) if quota else present[0]
        yield "", "cpu.max", f"{limit} {cpu.get('period') or present[1]}"
    for member, name in (("burst", "cpu.max.burst"), ("idle", "cpu.idle")):
        if cpu.get(member) is not None:
            yield "", name, str(cpu[member])
    for member, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(member):
            yield "", name, cpu[member]
    for member in ("realtimePeriod", "realtimeRuntime"):
        if cpu.get(member):
            yield "cpu", f"cpu.{member}", str(cpu[member])


def _unified_block(block: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    bfq = bool(value("", "io.bfq.weight"))
    name = "io.bfq.weight" if bfq else "io.weight"
    if weight := block.get("weight"):
        yield "", name, str(weight if bfq else blkio_to_weight(weight))
    for device in block.get("weightDevice") or ():
        weight = device["weight"] if bfq else blkio_to_weight(device["weight"])
        yield "", name, f"{device['major']}:{device['minor']} {weight}"
    for member, _, key in _THROTTLES:
        for device in block.get(member) or ():
            yield "", "io.max", f"{device['major']}:{device['minor']} {key}={device['rate']}"


def _unified_memory(memory: Mapping[str, Any], value: Value) -> Iterator[Setting]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if swap is None and limit and limit < 0:
        swap = -1
    # Without swap accounting in the kernel there is no such file, and nothing to limit.
    if swap and value("", "memory.swap.max"):
        # Version 1 counts memory and swap together, version 2 swap alone.
        memory_limit = str(limit or value("", "memory.max"))
        if swap < 0 or not memory_limit.isdigit():
            yield "", "memory.swap.max", "max"
        else:
            yield "", "memory.swap.max", str(max(0, swap - int(memory_limit)))
    if limit:
        yield "", "memory.max", _or_max(limit)
    if reservation := memory.get("reservation"):
        yield "", "memory.low", _or_max(reservation)


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2..262144) on the scale of cpu.weight (1..10000).

    A curve through (2, 1), (1024, 100) and (262144, 10000), so that the default of one version is
    that of the other; OCI runtimes have settled on it.
    """
    if shares >= 262144:
        return 10000
    log = math.log2(max(shares, 2))
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34) - 1e-9)


def blkio_to_weight(weight: int) -> int:
    """blkio.weight (10..1000) on the scale of io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990
