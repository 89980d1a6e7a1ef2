"""Control groups: values for both versions, and files written below a made-up hierarchy."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import Any

import pytest

from lading.linux import cgroup_devices, cgroup_limits, cgroup_stats, cgroups
from lading.linux.cgroups import UNIFIED, Cgroup, Hierarchies

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
INSIDE = "41 31 0:38 /docker/c1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def test_reading_mountinfo() -> None:
    found = cgroups.parse_mountinfo(HYBRID)
    assert found.mode == "hybrid"
    assert found.mounts["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert cgroups.parse_mountinfo(INSIDE).mode == "v2"
    assert cgroups.parse_mountinfo("1 2 0:1 / / rw - ext4 /dev/a rw\n").mode == "none"


def test_groups_by_name() -> None:
    group = Cgroup.at("/lading/x", cgroups.parse_mountinfo(HYBRID))
    assert group.directories["name=systemd"] == "/sys/fs/cgroup/systemd/lading/x"
    assert UNIFIED not in group.directories
    assert not group.unified
    for path in ("/", "", "/a/../b"):
        with pytest.raises(OSError):
            Cgroup.at(path, cgroups.parse_mountinfo(HYBRID))


def test_group_of_a_process_where_the_mount_shows_a_part() -> None:
    group = Cgroup.of_table("0::/docker/c1/inner\n", cgroups.parse_mountinfo(INSIDE))
    assert group.directories == {UNIFIED: "/sys/fs/cgroup/inner"}
    group = Cgroup.of_table("0::/docker/c1\n", cgroups.parse_mountinfo(INSIDE))
    assert group.directories == {UNIFIED: "/sys/fs/cgroup"}


def values(**files: str) -> cgroup_limits.Value:
    return lambda _, name: files.get(name.replace(".", "_"), "")


def unified(resources: dict[str, Any], **files: str) -> dict[str, str]:
    return {name: text for _, name, text in cgroup_limits.unified(resources, values(**files))}


def legacy(resources: dict[str, Any], **files: str) -> list[tuple[str, str]]:
    return [(name, text) for _, name, text in cgroup_limits.legacy(resources, values(**files))]


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (1, 1), (10**9, 10000)]
)
def test_shares(shares: int, weight: int) -> None:
    assert cgroup_limits.shares_to_weight(shares) == weight


def test_weights_rise_with_shares() -> None:
    weights = [cgroup_limits.shares_to_weight(shares) for shares in range(2, 4096)]
    assert weights == sorted(weights)


def test_block_weights() -> None:
    assert [cgroup_limits.blkio_to_weight(w) for w in (10, 1000)] == [1, 10000]


def test_unified_memory() -> None:
    swap = {"memory_swap_max": "max", "memory_max": "max"}
    assert unified({"memory": {"limit": 100, "swap": 150}}, **swap) == {
        "memory.swap.max": "50",
        "memory.max": "100",
    }
    assert unified({"memory": {"limit": -1}}, **swap)["memory.swap.max"] == "max"
    assert unified({"memory": {"swap": 90}}, memory_swap_max="0", memory_max="40") == {
        "memory.swap.max": "50"
    }
    assert unified({"memory": {"limit": 100, "swap": 150}}) == {"memory.max": "100"}
    assert unified({"memory": {"reservation": 7}}) == {"memory.low": "7"}


def test_unified_processor() -> None:
    assert unified({"cpu": {"quota": 50000, "period": 100000}}) == {"cpu.max": "50000 100000"}
    assert unified({"cpu": {"quota": -1}}) == {"cpu.max": "max 100000"}
    assert unified({"cpu": {"period": 5000}}, cpu_max="700 9000") == {"cpu.max": "700 5000"}
    assert unified({"cpu": {"quota": 700}}, cpu_max="max 9000") == {"cpu.max": "700 9000"}


def test_unified_rest() -> None:
    device = {"major": 8, "minor": 0}
    block = {
        "weight": 10,
        "weightDevice": [device | {"weight": 1000}],
        "throttleReadBpsDevice": [device | {"rate": 5}],
    }
    assert unified({"blockIO": block}) == {"io.weight": "8:0 10000", "io.max": "8:0 rbps=5"}
    found = unified({"blockIO": {"weight": 300}}, io_bfq_weight="default 100")
    assert found == {"io.bfq.weight": "300"}
    assert unified({"pids": {"limit": -1}}) == {"pids.max": "max"}
    assert unified({"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]}) == {
        "hugetlb.2MB.max": "9"
    }
    assert unified({"unified": {"memory.high": "1"}}) == {"memory.high": "1"}


def test_legacy_memory_order() -> None:
    rising = {"memory_memsw_limit_in_bytes": "100"}
    names = [name for name, _ in legacy({"memory": {"limit": 200, "swap": 300}}, **rising)]
    assert names == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    falling = {"memory_memsw_limit_in_bytes": "1000"}
    names = [name for name, _ in legacy({"memory": {"limit": 200, "swap": 300}}, **falling)]
    assert names == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    assert legacy({"memory": {"limit": 5, "swap": 9}}) == [("memory.limit_in_bytes", "5")]


def test_legacy_out_of_memory_switch() -> None:
    off = {"memory_oom_control": "oom_kill_disable 1\nunder_oom 0"}
    assert legacy({"memory": {"disableOOMKiller": True}}) == [("memory.oom_control", "1")]
    assert legacy({"memory": {"disableOOMKiller": True}}, **off) == []
    assert legacy({"memory": {"disableOOMKiller": False}}, **off) == [("memory.oom_control", "0")]
    assert legacy({"memory": {"swappiness": 0}}) == [("memory.swappiness", "0")]


def fake(top: Path, controllers: str = "cpu memory pids") -> Hierarchies:
    (top / "cgroup.controllers").write_text(controllers)
    (top / "cgroup.subtree_control").write_text("cpu")
    return Hierarchies({UNIFIED: str(top)}, {UNIFIED: "/"})


def test_creation_hands_controllers_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = fake(tmp_path)
    monkeypatch.setattr(cgroups, "hierarchies", lambda: where)
    monkeypatch.setattr(cgroups, "_mark_as_made", lambda _: None)
    group = Cgroup.at("/g", where)
    assert group.create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert not group.create()


def test_refused_limits_are_set_back(tmp_path: Path) -> None:
    group = Cgroup.at("/g", fake(tmp_path))
    (tmp_path / "g").mkdir()
    (tmp_path / "g/memory.max").write_text("4096")
    with pytest.raises(OSError, match='write "9"') as caught:
        group.apply({"memory": {"limit": 8192}, "pids": {"limit": 9}})
    assert caught.value.filename == str(tmp_path / "g/pids.max")
    assert (tmp_path / "g/memory.max").read_text() == "4096"


def test_a_controller_that_is_missing(tmp_path: Path) -> None:
    group = Cgroup.at("/g", fake(tmp_path))
    with pytest.raises(OSError, match="no net_cls cgroup controller") as caught:
        group.apply({"network": {"classID": 4}})
    assert caught.value.errno == errno.ENOTSUP


def test_unified_readings(tmp_path: Path) -> None:
    for name, text in {
        "cpu.stat": "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 4\n"
        "nr_throttled 2\nthrottled_usec 7\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.stat": "anon 5\nfile 6\n",
        "memory.events": "low 0\noom 3\noom_kill 2\n",
        "pids.current": "3\n",
        "pids.max": "9\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0 \n",
    }.items():
        (tmp_path / name).write_text(text)
    found = cgroup_stats.unified(str(tmp_path))
    assert (found.cpu_usage, found.cpu_user, found.throttled_time) == (3_000_000, 2_000_000, 7000)
    assert (found.memory_usage, found.memory_limit, found.oom_kills) == (4096, 0, 2)
    assert (found.pids, found.pids_limit, found.memory_stat) == (3, 9, {"anon": 5, "file": 6})
    row = {"read_bytes": 1, "write_bytes": 2, "reads": 3, "writes": 4}
    assert found.io == {"8:0": row, "253:0": {}}


DENY_ALL = {"allow": False, "access": "rwm"}


def rule(
    kind: str, major: int | None, minor: int | None, access: str, *, allow: bool = True
) -> Any:
    found = {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}
    return {key: value for key, value in found.items() if value is not None}


def test_legacy_device_rules() -> None:
    rules = [DENY_ALL, rule("c", 1, 3, "rw"), rule("b", 8, -1, "r"), rule("a", 7, None, "m")]
    assert list(cgroup_devices.legacy(rules)) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rw"),
        ("devices.allow", "b 8:* r"),
        ("devices.allow", "b 7:* m"),
        ("devices.allow", "c 7:* m"),
    ]


M, R, W = 1, 2, 4
ALLOW_ALL = {"allow": True, "access": "rwm"}
NO_WRITE = rule("c", 1, 3, "w", allow=False)
NO_DISK_WRITE = rule("b", 8, 0, "w", allow=False)


@pytest.mark.parametrize(
    ("rules", "asked", "allowed"),
    [
        ([DENY_ALL], ("c", 1, 3, R), False),
        ([{"allow": True, "access": "rwm"}], ("b", 8, 0, R | W | M), True),
        ([DENY_ALL, rule("c", 1, 3, "rw")], ("c", 1, 3, R | W), True),
        ([DENY_ALL, rule("c", 1, 3, "rw")], ("c", 1, 3, R | M), False),
        ([DENY_ALL, rule("c", 1, 3, "rw")], ("b", 1, 3, R), False),
        ([DENY_ALL, rule("c", 1, 3, "r"), rule("c", 1, 3, "w")], ("c", 1, 3, R | W), True),
        ([DENY_ALL, rule("c", 136, None, "rwm")], ("c", 136, 99, R | W), True),
        ([DENY_ALL, rule("c", None, None, "m")], ("c", 9, 9, M), True),
        ([DENY_ALL, rule("c", None, None, "m")], ("c", 9, 9, R), False),
        ([DENY_ALL, rule("c", 1, 3, "rwm"), NO_WRITE], ("c", 1, 3, W), False),
        ([DENY_ALL, rule("c", 1, 3, "rwm"), NO_WRITE], ("c", 1, 3, R), True),
        (
            [ALLOW_ALL, NO_DISK_WRITE],
            ("b", 8, 0, R | W),
            False,
        ),
        ([ALLOW_ALL, NO_DISK_WRITE], ("b", 8, 0, R), True),
    ],
)  # fmt: skip
def test_device_program(rules: Any, asked: tuple[str, int, int, int], allowed: bool) -> None:
    assert run(cgroup_devices.program(rules), *asked) is allowed


def run(code: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Interpret the few instructions that a device program is made of."""
    context = struct.pack("III", access << 16 | (1 if kind == "b" else 2), major, minor)
    registers = [0] * 11
    at = 0
    while True:
        operation, both, offset, value = struct.unpack_from("<BBhi", code, at * 8)
        to, source = both & 15, both >> 4
        at += 1
        if operation == 0x61:
            (registers[to],) = struct.unpack_from("I", context, offset)
        elif operation == 0xBC:
            registers[to] = registers[source]
        elif operation == 0xB4:
            registers[to] = value
        elif operation == 0x54:
            registers[to] &= value
        elif operation == 0x74:
            registers[to] >>= value
        elif operation == 0x16:
            at += offset if registers[to] == value else 0
        elif operation == 0x56:
            at += offset if registers[to] != value else 0
        else:
            assert operation == 0x95
            return registers[0] == 1


def test_a_group_that_goes_while_its_file_is_read_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel says ENODEV then, which once reached the user of ``rm -f``."""

    class Removed:
        def __enter__(self) -> Removed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> str:
            raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(cgroups, "open", lambda path: Removed(), raising=False)
    with pytest.raises(FileNotFoundError):
        Cgroup({"freezer": str(tmp_path)}).frozen()
