"""Rules of the isolation role: the life cycle, and what is left after it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.errors import Conflict, LadingError, NotFound, StartFailed
from lading.hooks.common import Mount
from lading.hooks.isolation import Container
from lading.testing._isolation_case import Case, Json, KitBase

_NO_SOURCE: Json = {
    "destination": "/tmp/v", "type": "bind", "source": "/no/such/source", "options": ["rbind"],
}  # fmt: skip


class LifeCycle(KitBase):
    """``create``, ``start``, ``exec``, ``signal``, ``delete``."""

    def test_created_init_waits(self, case: Case) -> None:
        """When create returns, the user's program has not been executed."""
        box = case.box("touch", "/tmp/executed")
        try:
            program = os.path.basename(os.readlink(f"/proc/{box.pid}/exe"))
        except OSError:
            program = "ended already"
        assert program not in ("busybox", "ended already"), f"got {program}; rule: {case.rule}"
        case.expect(False, (case.tree / "tmp/executed").exists())
        box.start()
        case.expect(0, box.finish().code)
        case.expect(True, (case.tree / "tmp/executed").exists())

    def test_created_init_has_its_namespaces(self, case: Case) -> None:
        """When create returns, /proc/<pid>/ns/* are the container's."""
        box = case.box("true")
        for name in ("mnt", "pid", "uts", "ipc", "net"):
            ours, theirs = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in ("self", box.pid))
            assert ours != theirs, f"expected another {name} namespace, got {ours}; {case.rule}"

    def test_exit_status_of_wait_pid(self, case: Case) -> None:
        """wait_pid is the child of the caller whose exit status is the process's."""
        case.expect(7, case.run("sh", "-c", "exit 7").code)

    def test_streams(self, case: Case) -> None:
        """Without terminal the three streams become 0, 1 and 2."""
        outcome = case.run("sh", "-c", "cat; echo more >&2", data=b"through")
        case.expect(("through", "more\n"), (outcome.out, outcome.err))

    def test_missing_program(self, case: Case) -> None:
        """A program that does not exist raises StartFailed with ENOENT."""
        for program in ("no-such-program", "/no/such/program"):
            error = case.refused(StartFailed, lambda p=program: case.running(p))  # type: ignore[misc]
            case.expect(errno.ENOENT, getattr(error, "errno", None))

    def test_program_that_is_no_program(self, case: Case) -> None:
        """A file that may not be executed raises StartFailed with EACCES."""
        error = case.refused(StartFailed, lambda: case.running("/etc/passwd"))
        case.expect(errno.EACCES, getattr(error, "errno", None))

    def test_init_that_could_not_start_has_ended(self, case: Case) -> None:
        """After a failed start the init has ended with 127 for ENOENT."""
        box = None
        try:
            box = case.box("no-such-program")
            box.start()
        except StartFailed:
            if box is not None:  # else it was found already by create, which left nothing
                case.expect(127, box.finish().code)

    def test_start_twice(self, case: Case) -> None:
        """start raises Conflict when not in state created."""
        box = case.sleeping()
        case.refused(Conflict, box.start)

    def test_exec(self, case: Case) -> None:
        """exec runs one more process in a running container."""
        box = case.sleeping()
        outcome = box.exec("sh", "-c", "hostname; ls -d /etc/passwd; exit 4")
        case.expect((4, "inside\n/etc/passwd\n"), (outcome.code, outcome.out))

    def test_exec_is_in_all_namespaces(self, case: Case) -> None:
        """An exec'd process is in the namespaces of the init."""
        box = case.sleeping()
        names = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
        links = " ".join(f"/proc/self/ns/{name}" for name in names)
        out = box.exec("sh", "-c", f"for n in {links}; do readlink $n; done").out.split()
        case.expect([os.readlink(f"/proc/{box.pid}/ns/{name}") for name in names], out)

    def test_exec_as_another_user(self, case: Case) -> None:
        """exec honours the process object: user, environment, working directory."""
        box = case.sleeping()
        user = {"uid": 5, "gid": 6, "additionalGids": [7]}
        outcome = box.exec(
            "sh", "-c", "id -u; id -g; id -G; echo $A; pwd", user=user, cwd="/tmp",
            env=["PATH=/bin", "A=b"], capabilities={},
        )  # fmt: skip
        case.expect(["5", "6", "6", "7", "b", "/tmp"], outcome.out.split())

    def test_exec_missing_program(self, case: Case) -> None:
        """exec raises StartFailed with errno for a program that cannot be executed."""
        box = case.sleeping()
        error = case.refused(StartFailed, lambda: box.exec("no-such-program"))
        case.expect(errno.ENOENT, getattr(error, "errno", None))

    def test_exec_after_the_end(self, case: Case) -> None:
        """exec raises Conflict when the container is not running."""
        box = case.running("true")
        box.finish()
        case.refused(Conflict, lambda: box.exec("true"))

    def test_several_execs_at_once(self, case: Case) -> None:
        """Any number of exec'd processes run at a time."""
        box = case.sleeping()
        first = case.backend.processes(container=box.container)
        for number in range(3):
            # By its path, as in test_exec_is_in_the_cgroup.
            code = box.exec("sh", "-c", f"/bin/sleep 1000 >/dev/null 2>&1 & exit {number}").code
            case.expect(number, code)
        case.expect(len(first) + 3, len(box.processes()))

    def test_signal_reaches_the_init(self, case: Case) -> None:
        """signal sends a signal to the init."""
        box = case.running(
            "sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done"
        )
        box.line()
        box.signal(signal.SIGUSR1)
        case.expect(3, box.finish().code)

    def test_kill(self, case: Case) -> None:
        """A killed init's status says so."""
        box = case.sleeping()
        box.signal(signal.SIGKILL)
        case.expect(128 + signal.SIGKILL, box.finish().code)

    @pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "KILL", "SEGV"])
    def test_status_tells_the_signal(self, case: Case, name: str) -> None:
        """wait_pid's status is the process's: also in the host's pid namespace, by any signal."""

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [row for row in rows if row["type"] != "pid"]

        box = case.sleeping(edit=edit)
        number = getattr(signal, f"SIG{name}")
        box.signal(number)
        case.expect(128 + number, box.finish().code)

    def test_signal_to_everyone(self, case: Case) -> None:
        """With everyone, every process of the container gets the signal."""
        # Process 1 itself ignores a signal for which it has no handler.
        box = case.running("sh", "-c", "sleep 1000 & echo ready; wait; echo end")
        box.line()
        box.signal(signal.SIGTERM, everyone=True)
        case.expect("end\n", box.finish().out)

    def test_signal_after_the_end(self, case: Case) -> None:
        """signal raises NotFound when the init has ended."""
        box = case.running("true")
        box.finish()
        case.refused(NotFound, lambda: box.signal(signal.SIGTERM))

    def test_pause_after_the_end(self, case: Case) -> None:
        """pause raises NotFound when the init has ended."""
        case.can("pause")
        box = case.running("true")
        box.finish()
        case.refused(NotFound, lambda: case.backend.pause(container=box.container))

    def test_delete_kills(self, case: Case) -> None:
        """delete kills what still runs."""
        box = case.sleeping()
        box.delete()
        case.expect(128 + signal.SIGKILL, box.finish().code)

    def test_delete_of_a_created_container(self, case: Case) -> None:
        """delete may be called in any state: before start."""
        before = traces(case)
        box = case.box("true")
        box.delete()
        box.finish()
        case.expect(set(), traces(case) - before)

    def test_delete_twice(self, case: Case) -> None:
        """delete may be called again, and for a container that never came to be."""
        box = case.running("true")
        box.finish()
        box.delete()
        box.delete()
        bundle = case.root / "never"
        (bundle / "state").mkdir(parents=True)
        case.backend.delete(container=Container("never", bundle, bundle / "state"))

    def test_delete_leaves_nothing(self, case: Case) -> None:
        """delete removes every trace: cgroups, mounts, state."""
        before = traces(case)
        box = case.running("sh", "-c", "sleep 1000 & exec sleep 1000")
        box.delete()
        box.finish()
        case.expect(set(), traces(case) - before)
        case.expect([], os.listdir(box.container.state))

    def test_host_mounts_stay(self, case: Case) -> None:
        """The root is mounted so that the host's mount table stays as it was."""
        before = traces(case)
        case.sleeping()
        new = {t for t in traces(case) - before if t.startswith("mount ")}
        case.expect(set(), new)

    @pytest.mark.parametrize(
        "break_it",
        [
            pytest.param(lambda c: c["mounts"].append(_NO_SOURCE), id="volume"),
            pytest.param(lambda c: c["linux"].update(sysctl={"no.such": "1"}), id="sysctl"),
            pytest.param(lambda c: c["process"].update(cwd="/etc/passwd"), id="directory"),
            pytest.param(
                lambda c: c["linux"]["resources"].update(cpu={"cpus": "4000"}), id="limit"
            ),
            pytest.param(lambda c: c["process"].update(args=["no-such"]), id="program"),
        ],
    )
    def test_failed_create_leaves_nothing(self, case: Case, break_it: object) -> None:
        """After a failed create nothing is left: no process, cgroup, mount or file."""
        assert callable(break_it)
        before = traces(case)
        case.refused(Exception, lambda: case.running("true", edit=break_it))
        # What failed in start only is the caller's to delete.
        case.boxes[-1].delete()
        case.expect(set(), traces(case) - before)

    def test_failed_root_leaves_nothing(self, case: Case) -> None:
        """A root that cannot be mounted fails create, and nothing is left."""
        before = traces(case)
        missing = Mount("bind", str(case.root / "missing"), ("rbind",))
        case.refused((LadingError, OSError), lambda: case.box("true", rootfs=(missing,)))
        case.expect(set(), traces(case) - before)

    def test_unknown_namespace_is_refused(self, case: Case) -> None:
        """It never runs a container with less isolation than asked for."""

        def edit(config: Json) -> None:
            config["linux"]["namespaces"].append({"type": "dreams"})

        before = traces(case)
        case.refused((LadingError, OSError), lambda: case.running("true", edit=edit))
        case.boxes[-1].delete()
        case.expect(set(), traces(case) - before)


def traces(case: Case) -> set[str]:
    """Mounts below the test's directory, and cgroups of the kit's containers, on this host."""
    return {*_mounts(str(case.root)), *_cgroups(f"/{case.cgroup_parent}/")}


def _mounts(root: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(root):
            yield f"mount {line.split()[4]}"


def _cgroups(parent: str) -> Iterator[str]:
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"cgroup {top}/{name}" for name in folders if parent in f"{top}/{name}")
