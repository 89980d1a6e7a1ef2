"""Rules of the isolation role: limits, readings, and control of what runs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lading.errors import Invalid
from lading.testing._isolation_case import Case, Edit, Json, KitBase

MEBIBYTE = 1 << 20


def limits(**resources: Json) -> Edit:
    """An edit that sets members of linux.resources."""
    return lambda config: config["linux"]["resources"].update(resources)


class Control(KitBase):
    """``pause``, ``resume``, ``update``, ``processes``, ``stats``."""

    def test_pause_and_resume(self, case: Case) -> None:
        """pause returns when all processes stand still; resume lets them go on."""
        case.can("pause")
        box = case.running("sh", "-c", "echo busy; while :; do :; done")
        box.line()
        case.backend.pause(container=box.container)
        before = _cpu(box.pid)
        case.backend.pause(container=box.container)  # a second call does nothing
        # Long enough for some ticks of the processor's clock, if it were still running: on a busy
        # host, too, for this process has to get as much of the processor's time meanwhile.
        began = time.process_time()
        while time.process_time() - began < 0.1:
            pass
        case.expect(before, _cpu(box.pid))
        case.backend.resume(container=box.container)
        case.backend.resume(container=box.container)
        while _cpu(box.pid) == before:
            time.sleep(0.01)

    def test_kill_a_paused_container(self, case: Case) -> None:
        """A frozen container gets SIGKILL too."""
        case.can("pause")
        box = case.sleeping()
        case.backend.pause(container=box.container)
        box.signal(signal.SIGKILL)
        case.expect(128 + signal.SIGKILL, box.finish().code)

    def test_delete_a_paused_container(self, case: Case) -> None:
        """delete may be called in any state: paused."""
        case.can("pause")
        box = case.sleeping()
        case.backend.pause(container=box.container)
        box.delete()
        case.expect(128 + signal.SIGKILL, box.finish().code)

    def test_processes(self, case: Case) -> None:
        """processes lists the host pids of all processes of the container."""
        box = case.running("sh", "-c", "sleep 1000 & echo ready; wait")
        box.line()
        pids = box.processes()
        case.expect(2, len(pids))
        case.expect(True, box.pid in pids)
        case.expect({os.readlink(f"/proc/{box.pid}/ns/pid")}, _namespaces(pids))

    def test_stats(self, case: Case) -> None:
        """stats reads the container's resource use."""
        script = "head -c 8m /dev/zero > /dev/shm/held 2>/dev/null; sleep 1000 & echo ready; wait"
        box = case.running("sh", "-c", script)
        box.line()
        found = box.stats()
        assert found.cpu_usage > 0, f"expected processor time, got {found}; rule: {case.rule}"
        assert found.memory_usage > MEBIBYTE // 2, f"got {found}; rule: {case.rule}"
        case.expect(2, found.pids)
        case.expect((0, 0), (found.memory_limit, found.oom_kills))
        assert found.memory_stat, f"expected rows of memory.stat, got none; rule: {case.rule}"

    def test_memory_limit(self, case: Case) -> None:
        """A memory limit is set, and stats tells it."""
        box = case.sleeping(edit=limits(memory={"limit": 32 * MEBIBYTE}))
        case.expect(32 * MEBIBYTE, box.stats().memory_limit)

    def test_small_memory_limit(self, case: Case) -> None:
        """The least that Docker allows (6 MiB) is enough: the backend's own part is not in it."""
        edit = limits(memory={"limit": 6 * MEBIBYTE, "swap": 6 * MEBIBYTE})
        box = case.sleeping(edit=edit)
        case.expect(6 * MEBIBYTE, box.stats().memory_limit)
        case.expect(0, box.exec("true").code)

    def test_out_of_memory(self, case: Case) -> None:
        """oom_kills counts the processes that the kernel killed for want of memory."""
        edit = limits(memory={"limit": 16 * MEBIBYTE, "swap": 16 * MEBIBYTE})
        script = "tail /dev/zero; echo $?; sleep 1000"
        box = case.running("sh", "-c", script, edit=edit)
        case.expect("137", box.line())
        case.expect(1, box.stats().oom_kills)

    def test_readings_after_the_end(self, case: Case) -> None:
        """stats can be read after the init has ended, until delete: it tells why it was killed."""
        edit = limits(memory={"limit": 16 * MEBIBYTE, "swap": 16 * MEBIBYTE})
        box = case.running("tail", "/dev/zero", edit=edit)
        case.expect(137, box.finish().code)
        case.expect(1, box.stats().oom_kills)
        case.expect([], list(box.processes()))

    def test_pids_limit(self, case: Case) -> None:
        """No more processes than pids.limit."""
        script = "(for i in 1 2 3 4 5 6; do sleep 1000 & done; echo all); echo end; exec cat"
        box = case.running("sh", "-c", script, edit=limits(pids={"limit": 5}))
        case.expect("end", box.line())
        case.expect(5, box.stats().pids_limit)

    def test_update(self, case: Case) -> None:
        """update changes limits of a running container; absent members stay."""
        case.can("update")
        box = case.sleeping(edit=limits(pids={"limit": 9}))
        resources = {"memory": {"limit": 40 * MEBIBYTE}}
        case.backend.update(container=box.container, resources=resources)
        found = box.stats()
        case.expect((40 * MEBIBYTE, 9), (found.memory_limit, found.pids_limit))

    def test_refused_update_changes_nothing(self, case: Case) -> None:
        """update changes all limits or none, and raises Invalid for a value the kernel refuses."""
        case.can("update")
        box = case.sleeping(edit=limits(memory={"limit": 32 * MEBIBYTE}))
        resources = {"memory": {"limit": 48 * MEBIBYTE}, "cpu": {"cpus": "4000"}}
        case.refused(
            Invalid, lambda: case.backend.update(container=box.container, resources=resources)
        )
        case.expect(32 * MEBIBYTE, box.stats().memory_limit)

    def test_exec_is_in_the_cgroup(self, case: Case) -> None:
        """An exec'd process counts as one of the container's."""
        box = case.sleeping()
        # By its path: the shell of some busyboxes runs an applet itself, and that process would
        # keep the descriptors that a redirection set aside, so that the output had no end.
        inside = box.exec("sh", "-c", "/bin/sleep 1000 >/dev/null 2>&1 & echo")
        case.expect(0, inside.code)
        case.expect(2, len(box.processes()))


def _cpu(pid: int) -> list[bytes]:
    """User and system time of a process, in ticks."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[11:13]


def _namespaces(pids: object) -> set[str]:
    assert isinstance(pids, (list, tuple))
    return {os.readlink(f"/proc/{pid}/ns/pid") for pid in pids}
