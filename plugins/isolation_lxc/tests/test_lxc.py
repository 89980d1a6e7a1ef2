"""What is LXC's own beside the contract."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.errors import Invalid, LadingError, Unsupported
from lading.hooks.common import Context
from lading.linux.cgroups import Cgroup
from lading.testing.isolation import Box, Case, Factory, Json, KitBase, traces
from lading_isolation_lxc import Lxc, interpose, keeper, library
from lading_isolation_lxc.config import MONITOR
from lading_isolation_lxc.library import LxcContainer


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library is looked for anew."""
    library.library.cache_clear()
    yield
    library.library.cache_clear()


@pytest.fixture
def backend(tmp_path: Path) -> Lxc:
    return Lxc(Context("lxc", tmp_path / "data", tmp_path / "run"))


def needs_library() -> None:
    try:
        library.library()
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.mark.root
def test_probe_without_the_library(
    backend: Lxc, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    monkeypatch.setattr(library, "NAME", "liblxc-is-missing.so.1")
    probe = backend.probe()
    assert (probe.usable, probe.reason) == (False, "liblxc-is-missing.so.1 is missing")
    assert "apt install liblxc1" in probe.remedy


@pytest.mark.root
def test_probe_of_an_old_library(backend: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_library()
    monkeypatch.setattr(library, "version", lambda: "4.0.6")
    assert backend.probe().reason == "liblxc 4.0.6 is too old"


@pytest.mark.root
def test_probe_of_a_library_that_works_otherwise(
    backend: Lxc, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_library()
    monkeypatch.setattr(library, "_EXECUTE", "execute_in_a_new_way")
    probe = backend.probe()
    assert not probe.usable
    assert "in a way not known here" in probe.reason
    assert probe.remedy == "use another isolation backend"


def test_a_function_that_is_not_called_cannot_be_replaced() -> None:
    needs_library()
    assert interpose.slots(library.library(), "execvp")
    assert interpose.slots(library.library(), "no_such_function") == []
    with pytest.raises(Unsupported, match="does not call no_such_function"):
        interpose.replace(library.library(), "no_such_function", None)


@pytest.mark.root
class TestLxc(KitBase):
    """Rules of this backend's own."""

    @pytest.fixture
    def factory(self) -> Factory:
        return Lxc

    def keeper(self, box: Box) -> int:
        assert box.started is not None
        return box.started.wait_pid

    def place(self, case: Case) -> str:
        found = case.backend.probe().details["containers"]
        assert isinstance(found, str)
        return found

    def test_lxc_sees_it(self, case: Case) -> None:
        """LXC's own programs find the container, and can end it."""
        if shutil.which("lxc-info") is None:
            pytest.skip("LXC's programs are not installed")
        box = case.sleeping()
        beside = ["nsenter", "-t", str(self.keeper(box)), "-n"]
        which = ["-P", self.place(case), "-n", box.container.id]
        told = subprocess.run(
            [*beside, "lxc-info", *which, "-p", "-H"], capture_output=True, check=True
        )
        case.expect(box.pid, int(told.stdout))
        subprocess.run([*beside, "lxc-stop", *which, "-k"], check=True)
        case.expect(137, box.finish().code)

    def test_nobody_else_reaches_the_keeper(self, case: Case) -> None:
        """LXC's command socket is out of reach, also of who shares the host's network."""

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [row for row in rows if row["type"] != "network"]

        box = case.sleeping(edit=edit)
        ours, theirs = (os.readlink(f"/proc/{p}/ns/net") for p in ("self", box.pid))
        case.expect(ours, theirs)
        sockets = Path("/proc/net/unix").read_text()
        case.expect(False, box.container.id in sockets)
        beside = Path(f"/proc/{self.keeper(box)}/net/unix").read_text()
        case.expect(True, "command" in beside)
        case.expect(ours, box.exec("readlink", "/proc/self/ns/net").out.strip())

    def test_nothing_of_lxc_stays(self, case: Case) -> None:
        """delete removes LXC's files: configuration, lock, and the directories made for them."""
        place = Path(self.place(case))
        box = case.running("true")
        case.expect(True, (place / box.container.id / "config").exists())
        box.finish()
        box.delete()
        locks = Path("/run/lxc/lock") / place.relative_to("/")
        case.expect((False, False), (place.exists(), locks.exists()))

    def test_dead_keeper(self, case: Case) -> None:
        """A container whose keeper is killed has ended so, and delete finds all that is left."""
        before = traces(case)
        box = case.sleeping(edit=lambda c: c["process"].update(user={"uid": 5, "gid": 5}))
        os.kill(self.keeper(box), signal.SIGKILL)
        case.expect(137, box.wait())
        box.delete()
        case.expect(set(), traces(case) - before)
        case.expect(False, os.path.exists(f"/proc/{box.pid}/ns/mnt"))

    def test_keeper_holds_no_streams(self, case: Case) -> None:
        """A program that closes its output is done with it, though it goes on."""
        box = case.running("sh", "-c", "exec >&- 2>&-; exec sleep 1000")
        assert box.streams is not None
        ends = (box.streams.stdout, box.streams.stderr)
        case.expect([b"", b""], [os.read(end, 9) for end in ends])
        case.expect(1, len(box.processes()))

    def test_keeper_holds_no_descriptors(self, case: Case) -> None:
        """What the starter has open does not stay open in the keeper."""
        leaked = os.open(case.root, os.O_RDONLY)
        try:
            box = case.sleeping()
            numbers = os.listdir(f"/proc/{self.keeper(box)}/fd")
            shown = {os.readlink(f"/proc/{self.keeper(box)}/fd/{n}") for n in numbers}
        finally:
            os.close(leaked)
        case.expect(False, str(case.root) in shown)

    def test_reboot_is_an_end(self, case: Case) -> None:
        """A program that reboots its namespace has ended with SIGHUP, and is not started again."""

        def edit(config: Json) -> None:
            for names in config["process"]["capabilities"].values():
                names.append("CAP_SYS_BOOT")

        outcome = case.run("sh", "-c", "echo once; reboot -f; sleep 1000", edit=edit)
        case.expect((129, "once\n"), (outcome.code, outcome.out))

    def test_failure_of_lxc(self, case: Case) -> None:
        """What LXC says of a failure is told, and nothing is left."""
        before = traces(case)

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [row for row in rows if row["type"] != "ipc"]
            rows.append({"type": "ipc", "path": "/no/such/namespace"})

        error = case.refused(LadingError, lambda: case.sleeping(edit=edit))
        assert "liblxc" in str(error), error
        assert "No such file or directory" in str(error), error
        case.expect(set(), traces(case) - before)
        case.expect([], os.listdir(case.boxes[-1].container.state))

    def test_lxc_that_hangs(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        """An LXC that waits for ever is given up, and nothing is left."""
        before = traces(case)
        monkeypatch.setattr(keeper, "DEADLINE", 1.0)
        monkeypatch.setattr(LxcContainer, "run", lambda self, become: signal.pause())
        error = case.refused(LadingError, case.sleeping)
        assert "did not start the container" in str(error), error
        case.expect(set(), traces(case) - before)

    def test_values_of_one_line(self, case: Case) -> None:
        """No path can bring lines of its own into LXC's configuration."""
        row = {"type": "ipc", "path": "/x\nlxc.hook.pre-start = /bin/true"}

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [*(r for r in rows if r["type"] != "ipc"), row]

        case.refused(Invalid, lambda: case.sleeping(edit=edit))

    def test_refusals(self, case: Case) -> None:
        """What LXC cannot make is refused before anything starts."""
        before = traces(case)
        for row, words in (
            ({"type": "time"}, "does not make time namespaces"),
            ({"type": "user", "path": "/proc/self/ns/user"}, "does not join a user namespace"),
        ):
            edit = lambda c, r=row: c["linux"]["namespaces"].append(r)  # noqa: E731
            error = case.refused(Unsupported, lambda e=edit: case.sleeping(edit=e))  # type: ignore[misc]
            assert words in str(error), error
        shared = lambda c: c["linux"].update(rootfsPropagation="rshared")  # noqa: E731
        error = case.refused(Unsupported, lambda: case.sleeping(edit=shared))
        assert "cannot have mounts of a container appear on the host" in str(error), error
        case.expect(set(), traces(case) - before)

    def test_old_groups_are_replaced(self, case: Case) -> None:
        """Empty groups that a crash has left are no hindrance."""

        def edit(config: Json) -> None:
            for suffix in ("", MONITOR):
                Cgroup.at(config["linux"]["cgroupsPath"] + suffix).create()

        case.expect("fine", case.sh("echo fine", edit=edit))
