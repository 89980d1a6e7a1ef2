"""What this backend does beyond the contract, or in its own way."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from lading.errors import Conflict, Invalid, NotFound, StartFailed, Unsupported
from lading.hooks import Mount
from lading.hooks.isolation import Stdio
from lading.linux import cgroups, syscalls
from lading.linux.mounts import mount_one
from lading.testing.isolation import (
    Case,
    Factory,
    Json,
    KitBase,
    mount,
    read_terminal,
    remap,
    skip_unless_mappable,
    traces,
)
from lading_isolation_native import Native

#: A hook that kills the process which waits for it: the monitor.
KILLING = {"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}


class NativeKit(KitBase):
    @pytest.fixture
    def factory(self) -> Factory:
        return Native


def reaping(config: Json) -> None:
    config["annotations"] = {"org.lading.init": "true"}


@pytest.mark.root
class TestReapingInit(NativeKit):
    def test_exit_code_and_orphans(self, case: Case) -> None:
        script = "(sleep 0.1 &) ; sleep 0.3; ps -o comm,stat; exit 9"
        outcome = case.run("sh", "-c", script, edit=reaping)
        assert outcome.code == 9
        assert "Z" not in outcome.out.replace("COMMAND", "")
        assert "lading-init" in outcome.out

    def test_signals_are_forwarded(self, case: Case) -> None:
        script = "trap 'exit 5' USR2; echo ready; while :; do sleep 0.1; done"
        box = case.running("sh", "-c", script, edit=reaping)
        box.line()
        box.signal(signal.SIGUSR2)
        assert box.finish().code == 5

    def test_a_killed_program(self, case: Case) -> None:
        assert case.run("sh", "-c", "kill -KILL $$", edit=reaping).code == 137

    def test_a_missing_program(self, case: Case) -> None:
        box = case.box("no-such", edit=reaping)
        with pytest.raises(StartFailed, match="executable file not found in"):
            box.start()
        assert box.finish().code == 127

    def test_the_program_has_the_terminal(self, case: Case) -> None:
        def edit(config: Json) -> None:
            reaping(config)
            config["process"]["terminal"] = True

        box = case.box("sh", "-c", "read line; echo got $line", edit=edit)
        assert box.started
        box.start()
        os.write(box.started.console, b"it\n")
        assert "got it" in read_terminal(box.started.console)
        os.close(box.started.console)
        assert box.wait() == 0


@pytest.mark.root
class TestProcess(NativeKit):
    def test_streams_can_be_opened_again_by_a_user(self, case: Case) -> None:
        user = {"uid": 77, "gid": 77}
        out = case.sh("echo again > /dev/stdout", lambda c: c["process"].update(user=user))
        assert out == "again"

    def test_streams_can_be_opened_again_in_a_user_namespace(self, case: Case) -> None:
        assert case.sh("echo again > /dev/stdout", remap) == "again"

    def test_terminal_belongs_to_the_user(self, case: Case) -> None:
        def edit(config: Json) -> None:
            config["process"].update(terminal=True, user={"uid": 77, "gid": 77})

        box = case.box("stat", "-c", "%u", "/dev/pts/0", edit=edit)
        assert box.started
        box.start()
        assert read_terminal(box.started.console).strip() == "77"
        os.close(box.started.console)
        box.wait()

    def test_terminal_of_an_exec(self, case: Case) -> None:
        box = case.sleeping()
        process = case.process(["sh", "-c", "tty; exit 3"]) | {"terminal": True}
        started = box.keeper.call(
            "exec", container=box.container, process=process, stdio=Stdio(terminal=True)
        )
        assert read_terminal(started.console).strip() == "/dev/pts/0"
        os.close(started.console)
        assert box.keeper.call("wait", pid=started.wait_pid) == 3

    def test_directory_that_only_root_may_enter(self, case: Case) -> None:
        (case.tree / "root").chmod(0o700)
        process = {"cwd": "/root", "user": {"uid": 77, "gid": 77}}
        assert case.sh("pwd", lambda c: c["process"].update(process)) == "/root"

    def test_hard_limit_that_may_not_be_raised(self, case: Case) -> None:
        rows = [{"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]
        before = traces(case)
        with pytest.raises(StartFailed, match=r"set RLIMIT_NOFILE to .*may not raise it"):
            case.box("true", edit=lambda c: c["process"].update(rlimits=rows))
        assert traces(case) == before

    def test_capabilities_that_the_engine_lacks_are_left_out(self, case: Case) -> None:
        def edit(config: Json) -> None:
            for names in config["process"]["capabilities"].values():
                names.append("CAP_SYS_RESOURCE")

        held = 1 << 24 & int(_status_row("self", "CapPrm"), 16)
        out = case.sh("grep CapEff /proc/self/status", edit)
        assert int(out.split()[1], 16) & 1 << 24 == held

    def test_signals_are_not_ignored(self, case: Case) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        try:
            out = case.sh("grep SigIgn /proc/self/status")
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert int(out.split()[1], 16) & ~(1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1) == 0

    def test_exec_in_a_paused_or_waiting_container(self, case: Case) -> None:
        waiting = case.box("true")
        with pytest.raises(Conflict, match="not started"):
            waiting.exec("true")
        box = case.sleeping()
        case.backend.pause(container=box.container)
        with pytest.raises(Conflict, match="paused"):
            box.exec("true")

    def test_messages(self, case: Case) -> None:
        for program, text in (
            ("no-such", 'exec: "no-such": executable file not found in $PATH'),
            ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
            ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
            ("/etc", 'exec: "/etc": is a directory: permission denied'),
        ):
            box = case.box(program)
            with pytest.raises(StartFailed) as caught:
                box.start()
            assert caught.value.message == text


def _status_row(pid: str, name: str) -> str:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(row.split()[1] for row in rows if row.startswith(name))


@pytest.mark.root
class TestNamespaces(NativeKit):
    @pytest.mark.skipif(
        not os.path.exists("/proc/self/ns/time"), reason="the kernel has no time namespaces"
    )
    def test_time(self, case: Case) -> None:
        def edit(config: Json) -> None:
            config["linux"]["namespaces"].append({"type": "time"})
            config["linux"]["timeOffsets"] = {"boottime": {"secs": 100 * 86400}}

        days = float(case.sh("cut -d' ' -f1 /proc/uptime", edit)) / 86400
        assert 100 <= days < 200

    def test_pid_of_another_in_a_user_namespace_of_its_own(self, case: Case) -> None:
        box = case.sleeping(edit=remap)

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [r for r in rows if r["type"] not in ("user", "pid")]
            for kind in ("pid", "user"):
                rows.append({"type": kind, "path": f"/proc/{box.pid}/ns/{kind}"})
            config["linux"].pop("uidMappings", None)

        assert "sleep" in case.sh("ps -o comm", edit)

    def test_sysfs_of_a_joined_network_in_a_user_namespace(self, case: Case) -> None:
        box = case.sleeping()

        def edit(config: Json) -> None:
            remap(config)
            rows = config["linux"]["namespaces"]
            rows[:] = [r for r in rows if r["type"] != "network"]
            rows.append({"type": "network", "path": f"/proc/{box.pid}/ns/net"})

        assert case.sh("ls /sys/class/net", edit) == "lo"

    def test_volume_that_the_mapped_user_may_not_walk_to(self, case: Case) -> None:
        hidden = case.root / "hidden"
        (hidden / "volume").mkdir(parents=True)
        (hidden / "volume/file").write_text("v")
        hidden.chmod(0o700)
        (case.tree / "v").mkdir()
        row = mount("/v", "bind", str(hidden / "volume"), "rbind", "ro")

        def edit(config: Json) -> None:
            remap(config)
            config["mounts"].append(row)

        assert case.sh("cat /v/file", edit) == "v"

    def test_volume_shown_with_mapped_owners(self, case: Case) -> None:
        skip_unless_mappable(case.root)
        (case.root / "volume").mkdir()
        (case.root / "volume/file").write_text("v")
        (case.tree / "v").mkdir()
        row = mount("/v", "bind", str(case.root / "volume"), "bind", "idmap")

        def edit(config: Json) -> None:
            remap(config)
            config["mounts"].append(row)

        assert case.sh("stat -c %u /v/file", edit) == "0"

    def test_root_shown_with_mapped_owners(self, case: Case) -> None:
        skip_unless_mappable(case.root)
        upper, work = case.root / "layer/upper", case.root / "layer/work"
        upper.mkdir(parents=True)
        work.mkdir()
        words = (f"lowerdir={case.tree}", f"upperdir={upper}", f"workdir={work}", "idmap")
        root = Mount("overlay", "overlay", words)
        box = case.box(
            "sh", "-c", "stat -c %u /etc/passwd; touch /mine", edit=remap, rootfs=(root,)
        )
        box.start()
        assert box.finish().out == "0\n"
        assert (upper / "mine").stat().st_uid == 0


@pytest.mark.root
class TestMounts(NativeKit):
    def test_read_only_all_the_way_down(self, case: Case) -> None:
        (case.root / "volume/below").mkdir(parents=True)
        mount_one(Mount("tmpfs", "tmpfs"), str(case.root / "volume/below"))
        try:
            source = str(case.root / "volume")
            for word, wanted in (("ro", "written"), ("rro", "refused")):
                script = "touch /v/below/x 2>/dev/null && echo written || echo refused"
                row = mount("/v", "bind", source, "rbind", word)
                assert case.sh(script, lambda c, r=row: c["mounts"].append(r)) == wanted
        finally:
            syscalls.umount2(str(case.root / "volume/below"))

    def test_shared_volume_propagates_to_the_host(self, case: Case) -> None:
        volume = case.root / "volume"
        volume.mkdir()
        mount_one(Mount("tmpfs", "tmpfs", ("shared",)), str(volume))
        try:
            (volume / "place").mkdir()

            def edit(config: Json) -> None:
                config["linux"]["rootfsPropagation"] = "shared"
                config["mounts"].append(mount("/v", "bind", str(volume), "rbind", "rshared"))
                for names in config["process"]["capabilities"].values():
                    names.append("CAP_SYS_ADMIN")

            case.sh("mount -t tmpfs tmpfs /v/place && touch /v/place/file", edit)
            assert (volume / "place/file").exists()
            syscalls.umount2(str(volume / "place"))
        finally:
            syscalls.umount2(str(volume), syscalls.MNT_DETACH)

    def test_tmpfs_takes_the_mode_of_what_it_hides(self, case: Case) -> None:
        (case.tree / "var").chmod(0o751)
        rows = [mount(where, "tmpfs", "tmpfs") for where in ("/var", "/fresh")]
        out = case.sh("stat -c %a /var /fresh", lambda c: c["mounts"].extend(rows))
        assert out.split() == ["751", "1777"]

    def test_masked_path_below_a_file(self, case: Case) -> None:
        case.sh("true", lambda c: c["linux"].update(maskedPaths=["/etc/passwd/below"]))

    def test_dangling_link_as_mount_point(self, case: Case) -> None:
        (case.tree / "run").symlink_to("/var/run")
        (case.root / "volume").mkdir()
        row = mount("/run/place", "bind", str(case.root / "volume"), "rbind")
        case.sh("touch /run/place/x", lambda c: c["mounts"].append(row))
        assert (case.root / "volume/x").exists()

    def test_device_of_the_config_replaces_the_default(self, case: Case) -> None:
        node = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
        out = case.sh("stat -c %a /dev/null", lambda c: c["linux"].update(devices=[node]))
        assert out == "600"

    def test_devices_without_a_mount_on_dev(self, case: Case) -> None:
        def edit(config: Json) -> None:
            config["mounts"] = [m for m in config["mounts"] if m["destination"] == "/proc"]

        assert case.sh("echo x > /dev/null; readlink /dev/fd", edit) == "/proc/self/fd"

    def test_control_groups_inside(self, case: Case) -> None:
        def edit(config: Json) -> None:
            for row in config["mounts"]:
                if row["type"] == "cgroup":
                    row["options"].remove("ro")

        path = "cgroup.procs" if cgroups.hierarchies().mode == "v2" else "pids/cgroup.procs"
        script = f"cat /sys/fs/cgroup/{path}; touch /sys/fs/cgroup/x 2>&1"
        assert case.sh(f"({script}); true", edit).startswith("1")


@pytest.mark.root
class TestControl(NativeKit):
    def test_made_parents_go_and_others_stay(self, case: Case) -> None:
        parent = cgroups.Cgroup.at(f"/lading-kit-own-{os.getpid()}")
        parent.create()
        try:
            path = f"/lading-kit-own-{os.getpid()}/between/group"
            case.sh("true", lambda c: c["linux"].update(cgroupsPath=path))
            place = Path(next(iter(parent.directories.values())))
            assert place.exists()
            assert not (place / "between").exists()
        finally:
            parent.remove()

    def test_group_with_processes_is_refused(self, case: Case) -> None:
        box = case.sleeping()
        config = json.loads((box.container.bundle / "config.json").read_text())
        path = config["linux"]["cgroupsPath"]
        with pytest.raises(Conflict, match="has processes already"):
            case.box("true", edit=lambda c: c["linux"].update(cgroupsPath=path))
        assert box.processes()

    def test_crash_while_creating(self, case: Case) -> None:
        """Killed at any moment, what create has made is found by delete."""
        before = traces(case)
        for point in ("prestart", "createRuntime"):
            with pytest.raises(Exception):  # noqa: B017  # the keeper is gone
                case.box("true", edit=lambda c, p=point: c.update(hooks={p: [KILLING]}))
            case.boxes[-1].delete()
        assert traces(case) == before

    def test_update_without_the_controller(self, case: Case) -> None:
        box = case.sleeping()
        with pytest.raises((Unsupported, Invalid)):
            case.backend.update(container=box.container, resources={"network": {"classID": 1}})

    def test_signal_to_a_container_that_was_never_made(self, case: Case) -> None:
        box = case.running("true")
        box.finish()
        box.delete()
        with pytest.raises(NotFound):
            box.signal(signal.SIGTERM)

    @pytest.mark.parametrize(
        "change",
        [
            {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}},
            {"linux": {"intelRdt": {"closID": "x"}}},
            {"process": {"scheduler": {"policy": "SCHED_FIFO"}}},
        ],
    )
    def test_what_it_cannot_hold(self, case: Case, change: Json) -> None:
        def edit(config: Json) -> None:
            for top, members in change.items():
                config[top].update(members)

        with pytest.raises(Unsupported):
            case.box("true", edit=edit)

    def test_nothing_in_the_state_is_readable_by_others(self, case: Case) -> None:
        box = case.sleeping()
        for name in os.listdir(box.container.state):
            mode = (box.container.state / name).stat().st_mode
            assert stat.S_IMODE(mode) & 0o022 == 0
