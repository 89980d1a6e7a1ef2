"""What ``info`` and ``version`` tell of this host."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import Any

from lading import __version__
from lading.api.version import MAXIMUM, MINIMUM, spelled

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
}
_PROXIES = (("HttpProxy", "http_proxy"), ("HttpsProxy", "https_proxy"), ("NoProxy", "no_proxy"))


def architecture() -> str:
    """The machine's architecture in Go's and OCI's spelling."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def version() -> dict[str, Any]:
    """``GET /version``."""
    common = {
        "ApiVersion": spelled(MAXIMUM),
        "MinAPIVersion": spelled(MINIMUM),
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": platform.release(),
        "BuildTime": "",
    }
    details = common | {"Experimental": "false"}
    return {
        "Platform": {"Name": "Lading"},
        "Version": __version__,
        **common,
        "Experimental": False,
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
    }


def info() -> dict[str, Any]:
    """The members of ``GET /info`` that depend on the host alone, and the empty rest."""
    shown: dict[str, Any] = {
        "ID": "",
        "Driver": "",
        "DriverStatus": [],
        "Plugins": {"Volume": ["local"], "Network": [], "Authorization": [], "Log": []},
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "OomKillDisable": False,
        "IPv4Forwarding": _setting("/proc/sys/net/ipv4/ip_forward") == "1",
        "BridgeNfIptables": _setting("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1",
        "BridgeNfIp6tables": _setting("/proc/sys/net/bridge/bridge-nf-call-ip6tables") == "1",
        "Debug": False,
        "NFd": len(os.listdir("/proc/self/fd")),
        "SystemTime": "",
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        "KernelVersion": platform.release(),
        "OperatingSystem": _operating_system().get("PRETTY_NAME", "Linux"),
        "OSVersion": _operating_system().get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": {},
            "Mirrors": [],
        },
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "GenericResources": [],
        "DockerRootDir": "",
        "Name": socket.gethostname(),
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {},
        "DefaultRuntime": "",
        "Swarm": _no_swarm(),
        "LiveRestoreEnabled": True,
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": [],
        "Warnings": [],
    }
    return shown | {name: os.environ.get(variable, "") for name, variable in _PROXIES}


def _no_swarm() -> dict[str, Any]:
    return {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    }


def _setting(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _operating_system() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
