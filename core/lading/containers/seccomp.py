"""Seccomp profiles: from the form that users write to OCI ``linux.seccomp``.

A profile of Docker's form may limit a rule to containers with (``includes``) or without
(``excludes``) some capabilities, to architectures, and to kernels from a version on.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lading.containers.seccomp_default import PROFILE
from lading.errors import Invalid

Json = dict[str, Any]

#: This machine's names, in Docker's profiles (Go's) and in libseccomp's.
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}


def default(capabilities: Sequence[str]) -> Json:
    """The default profile for a container with these capabilities."""
    return _default(tuple(sorted(capabilities)))


@lru_cache(maxsize=64)
def _default(capabilities: tuple[str, ...]) -> Json:
    return resolved(PROFILE, capabilities)


def custom(text: str, capabilities: Sequence[str]) -> Json:
    """A profile that the user gave as JSON. Raises Invalid."""
    try:
        return resolved(json.loads(text), capabilities)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"seccomp profile: {error}") from error


def resolved(profile: Mapping[str, Any], capabilities: Iterable[str]) -> Json:
    """The rules of a profile that hold for these capabilities on this machine."""
    held = frozenset(capabilities)
    go_name, native = _ARCHITECTURES.get(platform.machine(), (platform.machine(), ""))
    rules = []
    for rule in profile.get("syscalls") or ():
        if not _applies(rule, held, go_name):
            continue
        names = rule.get("names") or [rule["name"]]
        found: Json = {"names": list(names), "action": rule["action"]}
        if rule.get("errnoRet") is not None:
            found["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            found["args"] = list(rule["args"])
        rules.append(found)
    result: Json = {
        "defaultAction": profile["defaultAction"],
        "architectures": _architectures(profile, native),
        "syscalls": rules,
    }
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if profile.get("flags"):
        result["flags"] = list(profile["flags"])
    return result


def _architectures(profile: Mapping[str, Any], native: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    for row in profile.get("archMap") or ():
        if row["architecture"] == native:
            return [native, *(row.get("subArchitectures") or ())]
    return [native] if native else []


def _applies(rule: Mapping[str, Any], held: frozenset[str], architecture: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if excludes.get("arches") and architecture in excludes["arches"]:
        return False
    if not held.issuperset(includes.get("caps") or ()):
        return False
    if held.intersection(excludes.get("caps") or ()):
        return False
    if includes.get("minKernel") and _kernel() < _version(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


@lru_cache(maxsize=1)
def _kernel() -> tuple[int, ...]:
    numbers = os.uname().release.split("-")[0].split(".")
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in numbers[:2])
