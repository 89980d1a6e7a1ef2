"""Readings of a container's resources in Docker's JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from lading.containers.records import Container
from lading.hooks.isolation import Stats
from lading.store.clock import now

Json = dict[str, Any]

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
ZERO_TIME = "0001-01-01T00:00:00Z"

#: Docker's names of the I/O operations and ours.
_IO = (("Read", "read"), ("Write", "write"))


@cache
def memory_total() -> int:
    """The host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def system_cpu() -> int:
    """All time that the host's processors have counted, in nanoseconds."""
    with open("/proc/stat", "rb") as table:
        fields = table.readline().split()
    # guest and guest_nice are in user and nice already.
    return sum(int(f) for f in fields[1:9]) * 1_000_000_000 // _CLOCK_TICKS


def network_counters(pid: int) -> dict[str, Json]:
    """Counters of each interface but ``lo`` in the namespace of a process."""
    found = {}
    try:
        with open(f"/proc/{pid}/net/dev", "rb") as table:
            rows = table.read().decode().splitlines()[2:]
    except OSError:
        return {}
    names = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped")
    for row in rows:
        interface, _, numbers = row.partition(":")
        if interface.strip() == "lo":
            continue
        values = [int(v) for v in numbers.split()]
        counters = dict(zip(names, values[0:4], strict=True))
        counters |= dict(zip((n.replace("rx", "tx") for n in names), values[8:12], strict=True))
        found[interface.strip()] = counters
    return found


def reading(container: Container, stats: Stats, *, host_network: bool) -> Json:
    """One reading; ``precpu_stats`` is added by :func:`with_previous`."""
    shown: Json = {
        "read": now(),
        "preread": ZERO_TIME,
        "pids_stats": _pids(stats),
        "blkio_stats": _block_io(stats),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(stats),
        "precpu_stats": _no_cpu(),
        "memory_stats": _memory(stats),
        "name": f"/{container.name}",
        "id": container.id,
    }
    if not host_network and container.state.pid:
        shown["networks"] = network_counters(container.state.pid)
    return shown


def empty(container: Container) -> Json:
    """The reading of a container that does not run."""
    return {
        "read": ZERO_TIME,
        "preread": ZERO_TIME,
        "pids_stats": {},
        "blkio_stats": _block_io(Stats()),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _no_cpu(),
        "precpu_stats": _no_cpu(),
        "memory_stats": {},
        "name": f"/{container.name}",
        "id": container.id,
    }


def _pids(stats: Stats) -> Json:
    shown: Json = {"current": stats.pids}
    if stats.pids_limit:
        shown["limit"] = stats.pids_limit
    return shown


def _cpu(stats: Stats) -> Json:
    usage: Json = {
        "total_usage": stats.cpu_usage,
        "usage_in_kernelmode": stats.cpu_system,
        "usage_in_usermode": stats.cpu_user,
    }
    if stats.cpu_percpu:
        usage["percpu_usage"] = list(stats.cpu_percpu)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": system_cpu(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": stats.periods,
            "throttled_periods": stats.throttled_periods,
            "throttled_time": stats.throttled_time,
        },
    }


def _no_cpu() -> Json:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _memory(stats: Stats) -> Json:
    shown: Json = {
        "usage": stats.memory_usage,
        "limit": stats.memory_limit or memory_total(),
        "stats": dict(stats.memory_stat),
    }
    if stats.memory_max_usage:
        shown["max_usage"] = stats.memory_max_usage
    return shown


def _block_io(stats: Stats) -> Json:
    nothing = (
        "io_queue_recursive",
        "io_service_time_recursive",
        "io_wait_time_recursive",
        "io_merged_recursive",
        "io_time_recursive",
        "sectors_recursive",
    )
    return {
        "io_service_bytes_recursive": _io_rows(stats.io, "{}_bytes"),
        "io_serviced_recursive": _io_rows(stats.io, "{}s"),
        **dict.fromkeys(nothing, None),
    }


def _io_rows(io: Mapping[str, Mapping[str, int]], pattern: str) -> list[Json]:
    rows = []
    for device, counters in sorted(io.items()):
        major, minor = (int(part) for part in device.split(":"))
        for operation, name in _IO:
            value = counters.get(pattern.format(name), 0)
            rows.append({"major": major, "minor": minor, "op": operation, "value": value})
    return rows


def with_previous(current: Json, previous: Json | None) -> Json:
    """A reading together with the one before it, from which clients compute a share."""
    if previous is None:
        return current
    return {**current, "preread": previous["read"], "precpu_stats": previous["cpu_stats"]}


def follow(
    read: Callable[[], Json], *, stream: bool, one_shot: bool, seconds: float = 1.0
) -> Iterator[Json]:
    """Readings: one a second; or one, after a first that gives it something to compare with."""
    previous: Json | None = None
    if not stream:
        current = read()
        if one_shot or not current["cpu_stats"]["cpu_usage"]["total_usage"]:
            yield current
            return
        time.sleep(seconds)
        yield with_previous(read(), current)
        return
    while True:
        current = read()
        yield with_previous(current, previous)
        previous = current
        time.sleep(seconds)
