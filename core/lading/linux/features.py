"""Kernel features that backends stand on, each asked of the kernel itself where that can be done.

Nothing here changes the host: no process is made, no namespace entered, no module loaded except
those that the kernel loads by itself for a question (nf_tables, fuse).
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lading.linux import capabilities, syscalls
from lading.linux.cgroups import UNIFIED, WANTED, hierarchies

OK, MISSING, LIMITED = "ok", "missing", "limited"

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")

#: What of version 1 does the work of the controllers in ``WANTED``.
_LEGACY = ("cpuset", "cpu", "blkio", "memory", "pids", "devices", "freezer")

_NETLINK_NETFILTER = 12
_NFT_GETGEN = (10 << 8) | 16  # linux/netfilter/nf_tables.h: subsystem 10, NFT_MSG_GETGEN
_NLM_F_REQUEST, _NLMSG_ERROR = 1, 2


class Finding(msgspec.Struct, frozen=True, rename="pascal"):
    """One thing about the host; ``status`` is ``ok``, ``missing`` or ``limited``."""

    name: str
    status: str
    value: str = ""
    reason: str = ""
    remedy: str = ""


def findings() -> list[Finding]:
    """All features, in the order of a report."""
    return [row for look in _LOOKS for row in look()]


def _kernel() -> Iterator[Finding]:
    yield Finding("kernel", OK, platform.release())


def _namespaces() -> Iterator[Finding]:
    have = [kind for kind in NAMESPACES if Path(f"/proc/self/ns/{kind}").exists()]
    lack = [kind for kind in NAMESPACES if kind not in have]
    yield Finding(
        "namespaces",
        LIMITED if lack else OK,
        " ".join(have),
        f"the kernel has no namespaces of kind {', '.join(lack)}" if lack else "",
        "boot a kernel with CONFIG_NAMESPACES and all its parts" if lack else "",
    )
    if "user" in have and _read("/proc/sys/user/max_user_namespaces") == "0":
        yield Finding(
            "user namespaces",
            MISSING,
            reason="their number is limited to 0: --userns-remap cannot work",
            remedy="sysctl user.max_user_namespaces=15000",
        )


def _overlay() -> Iterator[Finding]:
    yield _filesystem("overlay", "overlayfs", "CONFIG_OVERLAY_FS")


def _filesystem(kind: str, name: str, option: str) -> Finding:
    listed = {line.split()[-1] for line in _read("/proc/filesystems").splitlines()}
    if kind in listed:
        return Finding(name, OK, "in the kernel")
    release = platform.release()
    for index in ("modules.dep", "modules.builtin"):
        if f"/{kind}.ko" in _read(f"/lib/modules/{release}/{index}"):
            return Finding(name, OK, "a module")
    return Finding(name, MISSING, "", f"the kernel knows no {kind}", f"boot one with {option}")


def _system_calls() -> Iterator[Finding]:
    calls: dict[str, Callable[[], object]] = {
        "openat2": lambda: syscalls.openat2(-1, "x", 0),
        "move_mount": lambda: syscalls.open_tree(-1, "x", 0),
        "mount_setattr": lambda: syscalls.mount_setattr(-1, "x", 0),
        "pidfd_open": lambda: os.pidfd_open(os.getpid()),
    }
    lack = []
    for name, call in calls.items():
        try:
            result = call()
            if isinstance(result, int):
                os.close(result)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                lack.append(name)
    yield Finding(
        "system calls",
        LIMITED if lack else OK,
        " ".join(name for name in calls if name not in lack),
        f"{', '.join(lack)} cannot be called" if lack else "",
        "boot Linux 5.12 or later; in a container, allow them in its seccomp profile"
        if lack
        else "",
    )


def _seccomp() -> Iterator[Finding]:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail")
    if actions or "\nSeccomp:" in _read("/proc/self/status"):
        yield Finding("seccomp", OK, actions)
    else:
        reason = "the kernel filters no system calls"
        yield Finding("seccomp", MISSING, "", reason, "boot one with CONFIG_SECCOMP_FILTER")


def _nf_tables() -> Iterator[Finding]:
    refusal = _ask_nf_tables()
    if not refusal:
        yield Finding("nf_tables", OK, "answers")
        return
    yield Finding(
        "nf_tables",
        MISSING,
        "",
        f"the kernel's packet filter does not answer: {refusal}",
        "load the module nf_tables, or use a network backend that does without",
    )


def _ask_nf_tables() -> str:
    """Ask for the generation of the ruleset; returns the kernel's refusal, "" for an answer."""
    # struct nlmsghdr and struct nfgenmsg (linux/netlink.h, linux/netfilter/nfnetlink.h)
    request = struct.pack("=IHHII4x", 20, _NFT_GETGEN, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
            kernel.settimeout(1)
            kernel.send(request)
            answer = kernel.recv(4096)
    except OSError as error:
        return error.strerror or str(error)
    kind = struct.unpack_from("=H", answer, 4)[0]
    code = -struct.unpack_from("=i", answer, 16)[0] if kind == _NLMSG_ERROR else 0
    return os.strerror(code) if code else ""


def _cgroups() -> Iterator[Finding]:
    found = hierarchies()
    if found.mode == "none":
        yield Finding(
            "cgroups", MISSING, "", "no hierarchy is mounted", "mount cgroup2 on /sys/fs/cgroup"
        )
        return
    if found.mode == "v2":
        wanted: tuple[str, ...] = WANTED
        have = _read(f"{found.mounts[UNIFIED]}/cgroup.controllers").split()
    else:
        wanted = _LEGACY
        have = sorted(key for key in found.mounts if key and not key.startswith("name="))
    lack = [name for name in wanted if name not in have]
    yield Finding(
        "cgroups",
        LIMITED if lack else OK,
        f"{found.mode}: {' '.join(have)}",
        f"no controller {', '.join(lack)}: limits of that kind are refused" if lack else "",
        "enable them on the kernel's command line or in the parent group" if lack else "",
    )


def _capabilities() -> Iterator[Finding]:
    lack = sorted(capabilities.lacking())
    yield Finding(
        "capabilities",
        LIMITED if lack else OK,
        "all" if not lack else "",
        f"this process lacks {', '.join(lack)}" if lack else "",
        "run as root, in a container with --privileged" if lack else "",
    )


def _fuse() -> Iterator[Finding]:
    if Path("/dev/fuse").exists():
        yield Finding("fuse", OK, "/dev/fuse")
    else:
        yield Finding("fuse", MISSING, "", "there is no /dev/fuse", "modprobe fuse")


def _forwarding() -> Iterator[Finding]:
    if _read("/proc/sys/net/ipv4/ip_forward") == "1":
        yield Finding("forwarding", OK, "on")
        return
    yield Finding(
        "forwarding",
        LIMITED,
        "off",
        "IPv4 is not forwarded: containers reach no other host",
        "the daemon does it unless told --ip-forward=false: sysctl net.ipv4.ip_forward=1",
    )


def _confinement() -> Iterator[Finding]:
    apparmor = _read("/sys/module/apparmor/parameters/enabled").startswith("Y")
    yield Finding("AppArmor", OK, "on" if apparmor else "off")
    selinux = _read("/sys/fs/selinux/enforce")
    states = {"": "off", "0": "permissive", "1": "enforcing"}
    yield Finding("SELinux", OK, states.get(selinux, selinux))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


_LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _kernel,
    _namespaces,
    _overlay,
    _system_calls,
    _seccomp,
    _nf_tables,
    _cgroups,
    _capabilities,
    _fuse,
    _forwarding,
    _confinement,
)
