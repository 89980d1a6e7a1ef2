"""Devices of containers: the nodes they get and what their cgroup lets them touch."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from lading.errors import Invalid
from lading.model.docker import DeviceMapping, HostConfig

Json = dict[str, Any]

#: Below /dev, yet not devices of the host that a privileged container should have.
_NOT_DEVICES = frozenset({"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"})

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")


def _rule(kind: str, major: int | None, minor: int | None, access: str = "rwm") -> Json:
    rule: Json = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


#: Deny all; then what every container may: make any node, and use the harmless ones.
DEFAULT_RULES: tuple[Json, ...] = (
    {"allow": False, "access": "rwm"},
    _rule("c", None, None, "m"),
    _rule("b", None, None, "m"),
    _rule("c", 1, 3),  # null
    _rule("c", 1, 5),  # zero
    _rule("c", 1, 7),  # full
    _rule("c", 1, 8),  # random
    _rule("c", 1, 9),  # urandom
    _rule("c", 5, 0),  # tty
    _rule("c", 5, 1),  # console
    _rule("c", 5, 2),  # ptmx
    _rule("c", 136, None),  # pts/*
)


def check(host: HostConfig) -> None:
    """Raises Invalid for mistakes that show without looking at the host."""
    for device in host.devices:
        if not set(device.cgroup_permissions) <= set("rwm"):
            raise Invalid(f"invalid device mode: {device.cgroup_permissions}")
    for rule in host.device_cgroup_rules:
        if not _RULE.fullmatch(rule):
            raise Invalid(f"invalid device cgroup rule format: '{rule}'")
    if host.device_requests:
        drivers = {name for request in host.device_requests for name in [request.driver]}
        raise Invalid(
            f'could not select device driver "{", ".join(sorted(drivers))}" with capabilities: '
            f"{host.device_requests[0].capabilities}"
        )


def oci(host: HostConfig) -> tuple[list[Json], list[Json]]:
    """OCI ``linux.devices`` and ``linux.resources.devices``. Raises Invalid, naming the device."""
    if host.privileged:
        nodes = list(_all_devices())
        own = [n for d in host.devices if d.path_on_host != d.path_in_container for n in _own(d)]
        return [*nodes, *(node for node, _ in own)], [{"allow": True, "access": "rwm"}]
    nodes, rules = [], list(DEFAULT_RULES)
    for device in host.devices:
        for node, access in _own(device):
            nodes.append(node)
            rules.append(_rule(node["type"], node["major"], node["minor"], access))
    for text in host.device_cgroup_rules:
        rules.append(_cgroup_rule(text))
    return nodes, rules


def _cgroup_rule(text: str) -> Json:
    match = _RULE.fullmatch(text)
    if match is None:
        raise Invalid(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    return _rule(
        kind, None if major == "*" else int(major), None if minor == "*" else int(minor), access
    )


def _own(device: DeviceMapping) -> Iterator[tuple[Json, str]]:
    """The nodes that one ``--device`` stands for: itself, or all below a directory."""
    access = device.cgroup_permissions or "rwm"
    source = os.path.realpath(device.path_on_host)
    target = device.path_in_container or device.path_on_host
    try:
        status = os.stat(source)
    except OSError as error:
        raise Invalid(
            "error gathering device information while adding custom device "
            f'"{device.path_on_host}": {(error.strerror or "").lower()}'
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        node = _node(target, status)
        if node is None:
            raise Invalid(
                "error gathering device information while adding custom device "
                f'"{device.path_on_host}": not a device node'
            )
        yield node, access
        return
    for path in _below(source):
        node = _node(os.path.join(target, os.path.relpath(path, source)), os.stat(path))
        if node is not None:
            yield node, access


def _node(path: str, status: os.stat_result) -> Json | None:
    if stat.S_ISBLK(status.st_mode):
        kind = "b"
    elif stat.S_ISCHR(status.st_mode):
        kind = "c"
    else:
        return None
    return {
        "path": path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _all_devices() -> Iterator[Json]:
    for path in _below("/dev"):
        try:
            node = _node(path, os.lstat(path))
        except OSError:
            continue
        if node is not None:
            yield node


def _below(top: str) -> Iterator[str]:
    for directory, folders, files in os.walk(top):
        folders[:] = [f for f in folders if directory != "/dev" or f not in _NOT_DEVICES]
        for name in files:
            if directory != "/dev" or name not in _NOT_DEVICES:
                yield os.path.join(directory, name)
