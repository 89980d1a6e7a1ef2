"""Published ways out of containers, each tried."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest

from lading.errors import StartFailed
from lading.testing.isolation import Case, Factory, Json, KitBase, mount, traces
from lading_isolation_native import Native

EXCHANGE = 2
SECRET = "secret-of-the-host"


@pytest.mark.root
class TestEscapes(KitBase):
    @pytest.fixture
    def factory(self) -> Factory:
        return Native

    def test_working_directory_in_a_leaked_descriptor(self, case: Case) -> None:
        """CVE-2024-21626: the monitor's open directories are no way out."""
        (case.root / SECRET).touch()
        leaked = os.open(case.root, os.O_RDONLY)
        os.set_inheritable(leaked, True)
        try:
            box = case.sleeping()
            for number in range(3, leaked + 4):
                for cwd in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/made"):
                    case.refused(
                        (StartFailed, OSError), lambda d=cwd: box.exec("ls", cwd=d)
                    )  # fmt: skip
                    case.refused(
                        (StartFailed, OSError),
                        lambda d=cwd: case.running("ls", edit=lambda c: c["process"].update(cwd=d)),
                    )
        finally:
            os.close(leaked)
        assert not (case.root / "made").exists()

    def test_program_in_a_leaked_descriptor(self, case: Case) -> None:
        """A program named through an inherited descriptor is not found."""
        (case.root / "program").write_text(f"#!/bin/sh\necho {SECRET}\n")
        (case.root / "program").chmod(0o755)
        leaked = os.open(case.root, os.O_RDONLY)
        os.set_inheritable(leaked, True)
        try:
            box = case.sleeping()
            for number in range(3, leaked + 4):
                program = f"/proc/self/fd/{number}/program"
                case.refused(StartFailed, lambda p=program: case.running(p))
                case.refused(StartFailed, lambda p=program: box.exec(p))
        finally:
            os.close(leaked)

    def test_descriptors_of_processes_that_come_in(self, case: Case) -> None:
        """CVE-2016-9962: what an exec'd process has open before it executes stays hidden."""
        script = (
            "trap 'exit 0' TERM; while :; do for p in /proc/[0-9]*; do "
            "readlink $p/cwd $p/root $p/exe; ls -l $p/fd/; done 2>/dev/null; done"
        )
        leaked = os.open(case.root, os.O_RDONLY)
        try:
            box = case.running("sh", "-c", f"{script} >/tmp/seen")
            for _ in range(20):
                box.exec("true")
            box.signal(15)
            box.finish()
        finally:
            os.close(leaked)
        seen = (case.tree / "tmp/seen").read_text()
        assert str(case.root) not in seen
        assert "python" not in seen

    def test_link_at_the_end_of_a_mount_point(self, case: Case) -> None:
        """CVE-2021-30465 at rest: a link in the image, by which a volume would land outside."""
        outside = case.root / "outside"
        outside.mkdir()
        for depth, target in enumerate((str(outside), "../../../../../.." + str(outside))):
            (case.tree / f"trap{depth}").symlink_to(target)
            rows = [mount(f"/trap{depth}/below", "tmpfs", "tmpfs")]
            case.sh("true", edit=lambda c, r=rows: c["mounts"].extend(r))
        assert os.listdir(outside) == []

    def test_link_swapped_in_while_mounting(self, case: Case) -> None:
        """CVE-2021-30465, CVE-2024-45310: a directory and a link change places all the time."""
        outside = case.root / "outside"
        outside.mkdir()
        volume = case.root / "volume"
        (volume / "place/below").mkdir(parents=True)
        (volume / "link").symlink_to(f"../../../../../../..{outside}")
        rows = [
            mount("/v", "bind", str(volume), "rbind"),
            mount("/v/place/below", "bind", "/etc", "rbind"),
        ]
        with Swapping(volume / "place", volume / "link"):
            for _ in range(25):
                try:
                    out = case.sh("ls /", edit=lambda c: c["mounts"].extend(rows))
                except (OSError, StartFailed):
                    continue  # an exchange that was noticed
                assert "boot" not in out.split()
        assert os.listdir(outside) == []

    def test_masking_by_a_false_null_device(self, case: Case) -> None:
        """CVE-2025-31133: what covers masked files must be the null device."""
        fake = case.root / "dev"
        fake.mkdir()
        (fake / "null").symlink_to("/proc/sysrq-trigger")

        def edit(config: Json) -> None:
            config["mounts"] = [m for m in config["mounts"] if m["destination"][:4] != "/dev"]
            config["mounts"].append(mount("/dev", "bind", str(fake), "rbind"))
            config["linux"]["maskedPaths"] = ["/etc/passwd"]

        case.refused(OSError, lambda: case.box("true", edit=edit))

    def test_console_that_is_a_link(self, case: Case) -> None:
        """CVE-2025-52565: the console is bound on a file of its name, nowhere else."""
        fake = case.root / "dev"
        (fake / "pts").mkdir(parents=True)
        (fake / "console").symlink_to("/proc/sysrq-trigger")

        def edit(config: Json) -> None:
            config["process"]["terminal"] = True
            for row in config["mounts"]:
                if row["destination"] == "/dev":
                    row.update(type="bind", source=str(fake), options=["rbind"])

        case.refused(OSError, lambda: case.box("true", edit=edit))

    def test_dev_that_is_a_link(self, case: Case) -> None:
        """A /dev that leads elsewhere leads elsewhere in the root."""
        outside = case.root / "outside"
        outside.mkdir()
        (case.tree / "dev").rmdir()
        (case.tree / "dev").symlink_to(outside)
        case.sh("echo x > /dev/null")
        assert os.listdir(outside) == []

    @pytest.mark.parametrize("name", ["proc", "sys"])
    def test_proc_that_is_a_link(self, case: Case, name: str) -> None:
        """CVE-2019-19921, CVE-2023-27561: protected paths would be looked for elsewhere."""
        (case.tree / name).rmdir()
        (case.tree / name).symlink_to("tmp")
        case.refused(OSError, lambda: case.box("true"))

    def test_sysctl_that_climbs(self, case: Case) -> None:
        """A sysctl's name stays below /proc/sys."""
        for name in ("../sysrq-trigger", "kernel/../../sysrq-trigger", "net/../../self/comm"):
            edit = lambda c, n=name: c["linux"].update(sysctl={n: "x"})  # noqa: E731
            case.refused(OSError, lambda e=edit: case.box("true", edit=e))

    def test_device_that_climbs(self, case: Case) -> None:
        """A device node is made inside the root, whatever its path."""
        node = {"path": "/../../tmp/../node", "type": "c", "major": 1, "minor": 3}
        case.sh("ls /node", edit=lambda c: c["linux"].update(devices=[node]))
        assert (case.tree / "node").exists()

    def test_cgroup_path_that_climbs(self, case: Case) -> None:
        """A cgroup path names a group below the root of the hierarchies."""
        for path in ("/../x", "/lading/../..", "/"):
            edit = lambda c, p=path: c["linux"].update(cgroupsPath=p)  # noqa: E731
            before = traces(case)
            case.refused(OSError, lambda e=edit: case.box("true", edit=e))
            assert traces(case) == before

    def test_release_agent(self, case: Case) -> None:
        """CVE-2022-0492: no group inside is one whose release agent the kernel would run."""
        case.expect("", case.sh("find /sys/fs/cgroup -name release_agent"))

    def test_session_keyring(self, case: Case) -> None:
        """Keyrings are in no namespace: the container has one of its own."""
        box = case.sleeping()
        for process in ("grep", "cat"):
            out = box.exec(process, *(["_ses"] if process == "grep" else []), "/proc/keys").out
            assert f"_ses.{box.container.id}" in out

    def test_engine_behind_a_reaping_init(self, case: Case) -> None:
        """Process 1 of --init is the engine's: its memory, files and texts are not to be seen."""
        script = (
            "cat /proc/1/environ /proc/1/maps; ls -l /proc/1/cwd/ /proc/1/root/; "
            "head -c 1 /proc/1/exe"
        )
        os.environ["LADING_TEST_SECRET"] = SECRET
        try:
            box = case.running("sh", "-c", f"({script}) 2>&1; exec sleep 1000", edit=reaping)
            lines = [box.line() for _ in range(5)]
            command = Path(f"/proc/{box.pid}/cmdline").read_bytes().strip(b"\0")
            environment = Path(f"/proc/{box.pid}/environ").read_bytes().strip(b"\0")
        finally:
            del os.environ["LADING_TEST_SECRET"]
        assert all("denied" in line for line in lines), lines
        assert (command, environment) == (b"lading-init", b"")


def reaping(config: Json) -> None:
    """Ask for an init that reaps."""
    config["annotations"] = {"org.lading.init": "true"}


class Swapping:
    """Two names exchange what they mean, all the time, in a thread."""

    def __init__(self, first: Path, second: Path) -> None:
        self.names = os.fsencode(first), os.fsencode(second)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._swap)

    def _swap(self) -> None:
        renameat2 = ctypes.CDLL(None).renameat2
        while not self.over.is_set():
            renameat2(-100, self.names[0], -100, self.names[1], EXCHANGE)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
