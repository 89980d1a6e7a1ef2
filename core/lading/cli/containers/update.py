"""``lading update``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import at_least, command
from lading.cli.containers.lifecycle import each
from lading.cli.creation.config import restart_policy
from lading.cli.creation.flags import LIMITS
from lading.cli.flags import Call, text

CHANGEABLE = frozenset(
    [
        "blkio-weight",
        "cpu-period",
        "cpu-quota",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpu-shares",
        "cpus",
        "cpuset-cpus",
        "cpuset-mems",
        "kernel-memory",
        "memory",
        "memory-reservation",
        "memory-swap",
        "pids-limit",
    ]
)
MEMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "kernel-memory": "KernelMemory",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


@command(
    "Change the limits of containers",
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    arguments=at_least(1),
    flags=(
        *(flag for flag in LIMITS if flag.long in CHANGEABLE),
        text("restart", "", "When to start it again: no, on-failure[:N], always, unless-stopped"),
    ),
    completes="containers",
)
def update(call: Call) -> int:
    """Send the limits that were given; the others stay as they are."""
    body: dict[str, Any] = {
        member: call.value(name) for name, member in MEMBERS.items() if call.changed(name)
    }
    if call.changed("restart"):
        body["RestartPolicy"] = restart_policy(call.text("restart"))
    if not body:
        raise call.usage_error("you must provide one or more flags when using this command", code=1)
    warnings: list[str] = []

    def act(name: str) -> str:
        answer = call.session.post(f"/containers/{name}/update", body) or {}
        warnings.extend(answer.get("Warnings") or [])
        return name

    code = each(call.session, call.args, act)
    for warning in warnings:
        call.session.warn(warning)
    return code
