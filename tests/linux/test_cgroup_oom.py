"""News of kills for want of memory."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from lading.linux import cgroup_oom
from lading.linux.cgroups import UNIFIED, Cgroup, Hierarchies


def test_version_2_counts_what_is_new(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 1\noom_kill 1\n")
    watch = cgroup_oom.Watch(cgroup_oom.open_watch(Cgroup({UNIFIED: str(tmp_path)})))
    assert watch.events == select.EPOLLPRI
    assert (watch.new(), watch.new()) == (1, 0)
    events.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert watch.new() == 2
    os.close(watch.descriptor)


def test_a_host_that_cannot_tell(tmp_path: Path) -> None:
    for group in (Cgroup({}), Cgroup({"memory": str(tmp_path)}), Cgroup({UNIFIED: str(tmp_path)})):
        with pytest.raises(OSError):
            cgroup_oom.open_watch(group)


def test_a_process_that_has_ended_has_no_group_to_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel shows it in the root group, and other containers' kills would be taken for its own.
    where = Hierarchies({"memory": str(tmp_path)})
    monkeypatch.setattr(cgroup_oom, "hierarchies", lambda: where)
    for name in ("memory.oom_control", "cgroup.event_control"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match="ended"):
        cgroup_oom.open_watch(Cgroup.of_table("4:memory:/\n", where))


@pytest.mark.root
def test_a_kill_is_told() -> None:
    group = Cgroup.at(f"/lading-oom-{os.getpid()}")
    group.create()
    try:
        group.apply({"memory": {"limit": 8 << 20, "swap": 8 << 20}})
        watch = cgroup_oom.Watch(cgroup_oom.open_watch(group))
        if watch.events == select.EPOLLPRI:
            watch.new()
        pid = os.fork()
        if pid == 0:
            group.join()
            held = []
            while True:
                held.append(bytearray(1 << 20))
        os.waitpid(pid, 0)
        poll = select.epoll()
        poll.register(watch.descriptor, watch.events)
        assert poll.poll(10)
        assert watch.new() == 1
        poll.close()
        os.close(watch.descriptor)
    finally:
        group.remove()
