"""``builder prune``: which records of the cache, steps and cache directories, have to go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from lading.build.cache import Cache, Record
from lading.build.cache_mounts import CACHE_MOUNT, CacheMounts
from lading.errors import Invalid
from lading.store.clock import point_in_time

_KNOWN = (
    "until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private",
)  # fmt: skip


def chooser(filters: Mapping[str, Sequence[str]]) -> Callable[[Record], bool]:
    """Whether a record passes all filters. Raises Invalid for unknown ones."""
    for name in filters:
        if name not in _KNOWN:
            raise Invalid(f"invalid filter '{name}' (known: {', '.join(_KNOWN)})")
    ages = [point_in_time(v) for name in ("until", "unused-for") for v in filters.get(name, ())]

    def passes(record: Record) -> bool:
        texts = {
            "id": record.id.removeprefix("sha256:"),
            "parent": record.parent.removeprefix("sha256:"),
            "type": record.kind,
            "description": record.description,
        }
        for name, text in texts.items():
            wanted = [v.removeprefix("sha256:") for v in filters.get(name, ())]
            if wanted and not any(_matches(name, text, value) for value in wanted):
                return False
        for name, holds in (("inuse", record.shared), ("shared", record.shared),
                            ("private", not record.shared)):  # fmt: skip
            if name in filters and holds != _truth(filters[name]):
                return False
        return all(record.used * 10**9 <= age for age in ages)

    return passes


def _matches(name: str, text: str, value: str) -> bool:
    if name in ("id", "parent"):
        return text.startswith(value)
    return value in text if name == "description" else value == text


def _truth(values: Sequence[str]) -> bool:
    return not values or values[0].lower() in ("", "1", "true")


def prune(
    cache: Cache,
    mounts: CacheMounts,
    filters: Mapping[str, Sequence[str]],
    *,
    all: bool,
    keep: int,
) -> tuple[list[str], int]:
    """Remove what passes the filters until no more than ``keep`` bytes are left; ids and bytes."""
    chosen = chooser(filters)
    directories = [r for r in mounts.records() if not r.shared]
    held = sum(record.size for record in directories)
    gone, freed = cache.prune(chosen, all=all, keep=keep, beside=held)
    left = held + sum(record.size for record in cache.records() if not record.shared)
    for record in directories:
        if keep and left <= keep:
            break
        if chosen(record) and mounts.remove(record.id):
            gone.append(record.id)
            freed += record.size
            left -= record.size
    return gone, freed


def shown(record: Record) -> dict[str, object]:
    """A record as ``GET /system/df`` has it."""

    def moment(seconds: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    return {
        "ID": record.id.removeprefix("sha256:")[:25],
        "Parent": record.parent.removeprefix("sha256:")[:25],
        "Type": record.kind,
        "Description": record.description,
        "InUse": record.shared and record.kind == CACHE_MOUNT,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": moment(record.created),
        "LastUsedAt": moment(record.used),
        "UsageCount": record.uses,
    }
