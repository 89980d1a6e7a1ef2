"""OCI ``linux.seccomp`` as LXC's text format, version 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lading.errors import Unsupported

_EPERM = 1
_ACTIONS = {
    "SCMP_ACT_ALLOW": "allow",
    "SCMP_ACT_KILL": "kill",
    "SCMP_ACT_KILL_THREAD": "kill",
    "SCMP_ACT_TRAP": "trap",
}


def text(profile: Mapping[str, Any]) -> str:
    """The filter; raises Unsupported for an action that LXC does not know."""
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    lines = ["2", f"allowlist {default}", "[all]"]
    for rule in profile.get("syscalls") or ():
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == default:
            continue
        for name in rule["names"]:
            lines += [f"{name} {action}{condition}" for condition in _conditions(rule)]
    return "\n".join(lines) + "\n"


def _action(name: str, number: int | None) -> str:
    if name == "SCMP_ACT_ERRNO":
        return f"errno {_EPERM if number is None else number}"
    if name not in _ACTIONS:
        raise Unsupported(f'isolation "lxc" does not know the seccomp action "{name}"')
    return _ACTIONS[name]


def _conditions(rule: Mapping[str, Any]) -> Iterator[str]:
    """Arguments that must all match; the same index twice makes alternatives, as in runc."""
    args = rule.get("args") or ()
    parts = [
        f"[{a['index']},{a['value']},{a['op']}"
        + (f",{a.get('valueTwo') or 0}" if a["op"] == "SCMP_CMP_MASKED_EQ" else "")
        + "]"
        for a in args
    ]
    if len({a["index"] for a in args}) < len(args):
        yield from (f" {part}" for part in parts)
    else:
        yield " " + ",".join(parts) if parts else ""
