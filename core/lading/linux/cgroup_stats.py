"""Resource use read from control files, both versions, as :class:`lading.hooks.isolation.Stats`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lading.hooks.isolation import Stats

#: Version 1 has no "max": no limit is the largest page-aligned value.
_NO_LIMIT = 1 << 60
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def text(path: str) -> str:
    """A file's text, "" when it cannot be read: a controller may be missing."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def number(path: str) -> int:
    """A file's number; 0 for ``max`` and for what cannot be read."""
    try:
        return int(text(path))
    except ValueError:
        return 0


def pairs(path: str) -> dict[str, int]:
    """A file of ``name number`` lines."""
    found = {}
    for line in text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def kills(events: bytes) -> int:
    """``oom_kill`` in the text of memory.events."""
    for line in events.splitlines():
        name, _, value = line.partition(b" ")
        if name == b"oom_kill":
            return int(value)
    return 0


def legacy(directories: Mapping[str, str]) -> Stats:
    """From version 1 hierarchies."""
    account = directories.get("cpuacct", "")
    memory = directories.get("memory", "")
    pids = directories.get("pids", "")
    split = pairs(f"{account}/cpuacct.stat")
    throttled = pairs(f"{directories.get('cpu', '')}/cpu.stat")
    limit = number(f"{memory}/memory.limit_in_bytes")
    return Stats(
        cpu_usage=number(f"{account}/cpuacct.usage"),
        cpu_user=split.get("user", 0) * _TICK,
        cpu_system=split.get("system", 0) * _TICK,
        cpu_percpu=tuple(map(int, text(f"{account}/cpuacct.usage_percpu").split())),
        throttled_periods=throttled.get("nr_throttled", 0),
        throttled_time=throttled.get("throttled_time", 0),
        periods=throttled.get("nr_periods", 0),
        memory_usage=number(f"{memory}/memory.usage_in_bytes"),
        memory_max_usage=number(f"{memory}/memory.max_usage_in_bytes"),
        memory_limit=0 if limit > _NO_LIMIT else limit,
        memory_stat=pairs(f"{memory}/memory.stat"),
        oom_kills=pairs(f"{memory}/memory.oom_control").get("oom_kill", 0),
        pids=number(f"{pids}/pids.current"),
        pids_limit=number(f"{pids}/pids.max"),
        io=_legacy_io(directories.get("blkio", "")),
    )


_LEGACY_IO = (
    ("blkio.throttle.io_service_bytes_recursive", "read_bytes", "write_bytes"),
    ("blkio.throttle.io_serviced_recursive", "reads", "writes"),
)


def _legacy_io(directory: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, read, write in _LEGACY_IO:
        for line in text(f"{directory}/{name}").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in ("Read", "Write"):
                row = found.setdefault(words[0], {})
                row[read if words[1] == "Read" else write] = int(words[2])
    return found


def unified(directory: str) -> Stats:
    """From a version 2 group."""
    cpu = pairs(f"{directory}/cpu.stat")
    return Stats(
        cpu_usage=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        memory_usage=number(f"{directory}/memory.current"),
        memory_max_usage=number(f"{directory}/memory.peak"),
        memory_limit=number(f"{directory}/memory.max"),
        memory_stat=pairs(f"{directory}/memory.stat"),
        oom_kills=pairs(f"{directory}/memory.events").get("oom_kill", 0),
        pids=number(f"{directory}/pids.current"),
        pids_limit=number(f"{directory}/pids.max"),
        io=_unified_io(text(f"{directory}/io.stat")),
    )


def _unified_io(table: str) -> dict[str, dict[str, int]]:
    names = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "reads", "wios": "writes"}
    found = {}
    for line in table.splitlines():
        device, *words = line.split()
        values = dict(word.split("=", 1) for word in words if "=" in word)
        found[device] = {names[k]: int(v) for k, v in values.items() if k in names}
    return found
