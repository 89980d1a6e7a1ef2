"""What a container sees must not depend on the isolation backend, save for what is listed here.

The same container runs under each backend and tells all that it can see of itself. Each line that
it tells differently than under ``native`` must match a row of :data:`ACCEPTED`, which says why; a
row that no line needs any more is a failure as well, so that the list stays true.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from lading.linux.cgroups import UNIFIED, hierarchies

from .conftest import Engine, names, text

pytestmark = pytest.mark.root

REFERENCE = "native"


@dataclass(frozen=True)
class Accepted:
    """A difference that is right: of these backends, in that section, on lines like that."""

    backends: str
    section: str
    line: str
    why: str
    #: The cgroup mode of the hosts that it is seen on; "" for all.
    mode: str = ""


ACCEPTED = (
    Accepted(
        "runc crun",
        "mounts",
        r"/(proc|sys)/\S+ ro,.* - tmpfs tmpfs ",
        "a masked directory is an empty, read-only tmpfs for all; runc leaves out nosuid, nodev "
        "and noexec, which mean nothing there, and the limits of its size",
    ),
    Accepted(
        "runc crun",
        "mounts",
        r"/sys/fs/cgroup r[ow],.* - tmpfs (tmpfs|cgroup) ",
        "runc leaves the tmpfs writable in which the version 1 hierarchies lie",
        "hybrid",
    ),
    Accepted(
        "runc crun",
        "rights",
        r".*/sys/fs/cgroup/cgroup.procs: ",
        "the same tmpfs: a file made there is none of the kernel's",
        "hybrid",
    ),
    Accepted(
        "runc crun",
        "mounts",
        r"/sys/fs/cgroup/systemd r[ow],.* - cgroup (cgroup|systemd) ",
        "the source of a mount of a version 1 hierarchy is a name without a meaning",
        "hybrid",
    ),
    Accepted(
        "runc crun lxc",
        "cgroup",
        r"0::/",
        "on a host with cgroups of both versions these make a group in version 2 as well, where "
        "nothing is limited; it is seen without a cgroup namespace",
        "hybrid",
    ),
    Accepted(
        "runc",
        "resources",
        r"devices/devices.list c 10:200 rwm",
        "runc before 1.2 lets every container use /dev/net/tun, whatever config.json says",
        "hybrid",
    ),
    Accepted(
        "runc",
        "sysctl",
        r"kernel/domainname ",
        "runc before 1.2 does not know the member domainname of config.json",
    ),
    Accepted(
        "lxc",
        "cgroup",
        r"0::/(\S+/)?\.lxc$",
        "LXC puts what is added to a container into a leaf of its version 2 group, as that version "
        "has processes in leaves only; the limits above hold for it too",
    ),
    Accepted(
        "crun",
        "mounts",
        r"/proc/\S+ r[ow],.* - (tmpfs|devtmpfs|proc) ",
        "crun hides files behind the host's /dev/null, in place of the container's, and binds "
        "read-only paths without the flags of /proc",
    ),
    Accepted(
        "crun",
        "mounts",
        r"/sys r[ow],.* - sysfs ",
        "crun makes the mount read-only, native the filesystem too",
    ),
    Accepted(
        "crun",
        "mounts",
        r"/sys/fs/cgroup/\w+ r[ow],.* - cgroup ",
        "the source of a mount of a version 1 hierarchy is a name without a meaning",
        "hybrid",
    ),
    Accepted(
        "crun",
        "devices",
        r"\./null c",
        "crun gives standard input to the container's user, also when it is the null device",
    ),
    Accepted("crun", "mounts", r"/dev/console ", "crun binds the console without flags"),
    *(
        Accepted("crun", section, r"\./core ", "crun links /dev/core to what this kernel lacks")
        for section in ("devices", "links")
        if not Path("/proc/kcore").exists()
    ),
    Accepted(
        "runc crun",
        "mounts",
        r"/sys/fs/cgroup r[ow],.* - cgroup2 cgroup2? ",
        "the source of a mount of cgroup2 is a name without a meaning",
        "v2",
    ),
    Accepted(
        "runc crun",
        "resources",
        r"cpu.weight ",
        "Debian's runtimes turn shares into a weight by the rule of before 2025, by which 1024 "
        "shares are less than the default weight (runc 1.3.2 and crun 1.23 changed that)",
        "v2",
    ),
    Accepted(
        "runc crun",
        "resources",
        r"\w+\.[a-z.]+ (max|0|100)",
        "without a cgroup namespace they show the whole hierarchy, whose root has no limits; "
        "native shows the container's own group",
        "v2",
    ),
    Accepted(
        "runc",
        "limits",
        r"Max open files ",
        "Go's runtime raises the soft limit for itself, and runc 1.1 passes that on",
        "v2",
    ),
)

#: Lines of /proc/self/status that tell of this very process, or of the machine.
MOMENTARY_STATUS = "|".join(
    (
        "Pid", "Tgid", "PPid", "Ngid", "NSpid", "NSpgid", "NStgid", "NSsid", "Vm", "Rss", "Hugetlb",
        "SigQ", "SigPnd", "ShdPnd", "voluntary", "nonvoluntary", "Threads", "x86_Thread", "Name",
        "State", "FDSize", "Speculation", "untag", "CoreDumping", "THP",
    )
)  # fmt: skip

#: What the cgroups of either version say; those that are there.
LIMITS = " ".join(
    (
        "memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes", "memory/memory.swappiness",
        "memory/memory.oom_control", "cpu/cpu.shares", "cpu/cpu.cfs_quota_us",
        "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "cpuset/cpuset.mems", "pids/pids.max",
        "devices/devices.list", "blkio/blkio.weight", "memory.max", "memory.low",
        "memory.swap.max", "cpu.weight", "cpu.max", "cpuset.cpus", "pids.max", "io.weight",
    )
)  # fmt: skip

#: Sections, each a script; its lines are compared as a set.
PROBE = {
    "mounts": "cut -d' ' -f5- /proc/self/mountinfo | sed -E 's/ (shared|master):[0-9]+//g'",
    "environment": "env",
    "status": f"grep -vE '^({MOMENTARY_STATUS})' /proc/self/status",
    "limits": "cat /proc/self/limits",
    "ids": "cat /proc/self/uid_map /proc/self/gid_map; id",
    "cgroup": "cat /proc/self/cgroup",
    "resources": f'cd /sys/fs/cgroup; for f in {LIMITS}; do [ -e $f ] && sed "s,^,$f ," $f; done',
    "devices": "cd /dev; find . ! -path './pts/*' -exec stat -c '%n %A %t:%T %u:%g' {} +",
    "links": "cd /dev; for l in $(find . -type l); do echo $l $(readlink $l); done",
    "process": (
        "echo $PWD; umask; hostname; cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l;"
        "cut -d' ' -f7 /proc/self/stat; tr '\\0' ' ' < /proc/1/cmdline | cut -c1-20"
    ),
    "sysctl": (
        "cd /proc/sys; for f in net/ipv4/ping_group_range net/ipv4/ip_unprivileged_port_start"
        " net/ipv4/ip_forward kernel/msgmax kernel/domainname kernel/shmmax;"
        " do echo $f $(cat $f); done"
    ),
    "namespaces": "cd /proc/self/ns; for n in *; do echo $n `readlink $n`; done",
    "hidden": (
        "for f in kcore keys timer_list acpi scsi; do head -c 9 /proc/$f | wc -c; done 2>&1;"
        "ls /sys/firmware 2>&1"
    ),
    "rights": (
        "touch /written && echo root written; mknod /tmp/x c 1 3 2>&1; mount -t tmpfs x /home 2>&1;"
        "chown 1 /tmp 2>&1; unshare -U true 2>&1; "
        # Opened only: for a privileged container these are the host's.
        "(: >> /proc/sys/kernel/panic) 2>&1; (: >> /sys/fs/cgroup/cgroup.procs) 2>&1;"
        "(: >> /sys/fs/cgroup/memory/cgroup.procs) 2>&1;"
        "cat /dev/other 2>&1; (echo > /dev/other) 2>&1"
    ),
}


def available_controllers() -> set[str]:
    """The cgroup controllers of this host, of either version."""
    tops = hierarchies().mounts
    listed = Path(tops.get(UNIFIED, "/nowhere")) / "cgroup.controllers"
    return {*tops, *(listed.read_text().split() if listed.exists() else ())}


VARIANTS: dict[str, Sequence[str]] = {
    "plain": (),
    "user": ("-u", "5:6", "--group-add", "7", "-w", "/var", "-e", "A=b"),
    "capabilities": ("--cap-drop", "all", "--cap-add", "net_admin", "--cap-add", "chown"),
    "user-with-capabilities": ("-u", "5", "--cap-add", "sys_admin"),
    "limits": (
        "-m", "64m", "--memory-swap", "64m", "--memory-reservation", "32m", "--pids-limit", "50",
        "--cpus", "0.5", "--cpu-shares", "512", "--ulimit", "nofile=100:200",
        "--oom-score-adj", "500", "--shm-size", "1m",
    ),
    "confined": (
        "--read-only", "--security-opt", "no-new-privileges", "--network", "none", "--tmpfs", "/t",
    ),
    "unconfined": ("--security-opt", "seccomp=unconfined"),
    "privileged": ("--privileged",),
    "hosts": ("--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"),
    "devices": ("--device", "/dev/null:/dev/other:r", "--device-cgroup-rule", "c 42:* rmw"),
    "names": ("-h", "named", "--domainname", "example", "--add-host", "a:1.2.3.4"),
    "sysctls": ("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4096"),
    "mounts": ("-v", "/etc:/bind:ro", "-v", "/named", "--tmpfs", "/x:size=1m,mode=700"),
    "cgroupns": ("--cgroupns", "host"),
    "terminal": ("-t",),
}  # fmt: skip

if "cpuset" in available_controllers():
    VARIANTS["processors"] = ("--cpuset-cpus", "0", "--cpuset-mems", "0")

#: Those that are looked at by a second process as well.
EXECED = ("plain", "user", "capabilities", "limits", "confined", "privileged")

#: What is another thing for each container, whoever runs it.
MOMENTARY = (
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"snapshots/\d+/", "snapshots/N/"),
    (r"inode64|,uuid=\w+", ""),
    (r"subvolid=\d+,subvol=\S+", "subvol"),
    (r",size=\d+k,nr_inodes=\d+", ",size"),
)


def own_namespaces() -> list[tuple[str, str]]:
    """The host's namespaces; a container's own have other numbers each time."""
    host = {os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")}
    return [(re.escape(name), "the host's") for name in host] + [(r"\w+:\[\d+\]$", "its own")]


def script() -> str:
    """All sections, each after a line with its name."""
    return (
        "\n".join(f"echo '@@ {name}'; ( {code} ) 2>&1" for name, code in PROBE.items()) + "\ntrue"
    )


def view(engine: Engine, isolation: str, options: Sequence[str]) -> dict[str, list[str]]:
    """What a container's program sees, by section."""
    words = ["run", "--rm", "--isolation", isolation, *options, "busybox", "sh", "-c", script()]
    return sections(text(engine.client("lading", *words, timeout=60)))


def view_of_exec(engine: Engine, isolation: str, options: Sequence[str]) -> dict[str, list[str]]:
    """What one more process of a container sees."""
    words = ["--name", "seen", "--isolation", isolation, *options, "busybox", "sleep", "1000"]
    engine.client("lading", "run", "-d", *words)
    try:
        return sections(text(engine.client("lading", "exec", "seen", "sh", "-c", script())))
    finally:
        engine.client("lading", "rm", "-f", "seen")


def sections(output: str) -> dict[str, list[str]]:
    """The lines of each section, without what is another thing each time."""
    shown: dict[str, list[str]] = {}
    for line in output.replace("\r\n", "\n").splitlines():
        if line.startswith("@@ "):
            section = shown.setdefault(line[3:], [])
            continue
        for pattern, instead in (*own_namespaces(), *MOMENTARY):
            line = re.sub(pattern, instead, line)
        section.append(line)
    return {name: sorted(lines) for name, lines in shown.items()}


Seen = dict[str, dict[str, list[str]]]

VIEWS = {variant: (view, options) for variant, options in VARIANTS.items()} | {
    f"{variant}, exec": (view_of_exec, VARIANTS[variant]) for variant in EXECED
}


@pytest.fixture(scope="module")
def views(engine: Engine) -> Callable[[str], Seen]:
    """What is seen in one variant, by backend; each is looked at once."""

    @cache
    def look(variant: str) -> Seen:
        at, options = VIEWS[variant]
        return {name: at(engine, name, options) for name in names("isolation")}

    return look


def differences(mine: dict[str, list[str]], other: dict[str, list[str]]) -> list[tuple[str, str]]:
    """(section, line) for every line that only one of the two has."""
    found = []
    for section in PROBE:
        a, b = mine.get(section, []), other.get(section, [])
        found += [(section, f"- {line}") for line in a if line not in b]
        found += [(section, f"+ {line}") for line in b if line not in a]
    return found


def accepts(row: Accepted, backend: str, section: str, line: str) -> bool:
    return (
        backend in row.backends.split()
        and row.section == section
        and row.mode in ("", hierarchies().mode)
        and re.match(row.line, line[2:]) is not None
    )


@pytest.mark.parametrize("variant", VIEWS)
def test_backends_agree(views: Callable[[str], Seen], variant: str) -> None:
    seen = views(variant)
    wrong = [
        f"{backend}: {section}: {line}"
        for backend in seen
        for section, line in differences(seen[REFERENCE], seen[backend])
        if not any(accepts(row, backend, section, line) for row in ACCEPTED)
    ]
    assert not wrong, "\n".join(wrong)


def test_list_of_accepted_differences_is_true(views: Callable[[str], Seen]) -> None:
    """Each row is needed by a backend of this host that it names."""
    lines = [
        (backend, section, line)
        for seen in map(views, VIEWS)
        for backend in seen
        for section, line in differences(seen[REFERENCE], seen[backend])
    ]
    here = set(names("isolation"))
    unused = [
        row
        for row in ACCEPTED
        if here & set(row.backends.split())
        and row.mode in ("", hierarchies().mode)
        and not any(accepts(row, *line) for line in lines)
    ]
    assert unused == []


def test_probe_sees_something(views: Callable[[str], Seen]) -> None:
    """An empty section would agree with everything."""
    plain = views("plain")[REFERENCE]
    assert {section for section in PROBE if not plain.get(section)} == set()
    assert any(line.startswith("CapEff") for line in plain["status"])
    assert any("memory" in line for line in plain["resources"])
