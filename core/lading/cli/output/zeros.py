"""Zero values of members that the API leaves out or sends as null.

Templates are written against Docker's typed objects, in which every member exists:
``{{if .State.Health}}`` must be false, not an error, for a container without a health check.
"""

from __future__ import annotations

from typing import Any

#: Members of containers and images, by the object that they belong to ("" for the outermost).
ZEROS: dict[str, dict[str, Any]] = {
    "": {
        "Comment": "",
        "ExecIDs": [],
        "Parent": "",
        "RepoDigests": [],
        "RepoTags": [],
        "SizeRootFs": None,
        "SizeRw": None,
    },
    "State": {"Health": None},
    "Config": {
        "Cmd": [],
        "Entrypoint": [],
        "Env": [],
        "ExposedPorts": {},
        "Healthcheck": None,
        "Labels": {},
        "MacAddress": "",
        "NetworkDisabled": False,
        "OnBuild": [],
        "Shell": [],
        "StopSignal": "",
        "StopTimeout": None,
        "Volumes": {},
    },
    "HostConfig": {
        "Annotations": {},
        "Binds": [],
        "CapAdd": [],
        "CapDrop": [],
        "DeviceCgroupRules": [],
        "DeviceRequests": [],
        "Devices": [],
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "ExtraHosts": [],
        "GroupAdd": [],
        "Init": None,
        "Links": [],
        "MaskedPaths": [],
        "Mounts": [],
        "OomKillDisable": None,
        "PidsLimit": None,
        "PortBindings": {},
        "ReadonlyPaths": [],
        "SecurityOpt": [],
        "StorageOpt": {},
        "Sysctls": {},
        "Tmpfs": {},
        "Ulimits": [],
        "VolumesFrom": [],
    },
    "NetworkSettings": {"Networks": {}, "Ports": {}},
}


def with_zeros(item: Any) -> Any:
    """A copy of a container or an image in which no member is missing; others as they are."""
    if not isinstance(item, dict) or "Config" not in item:
        return item
    filled = _filled(item, ZEROS[""])
    for name in ("State", "Config", "HostConfig", "NetworkSettings"):
        if isinstance(filled.get(name), dict):
            filled[name] = _filled(filled[name], ZEROS[name])
    return filled


def _filled(item: dict[str, Any], zeros: dict[str, Any]) -> dict[str, Any]:
    missing = {name: zero for name, zero in zeros.items() if item.get(name) is None}
    return {**item, **missing}
