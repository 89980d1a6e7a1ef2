"""Rules of the isolation role: what a container's processes see, and what they may."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import pytest

from lading.hooks.common import Mount
from lading.hooks.isolation import INIT_ANNOTATION
from lading.linux import mounts, namespaces, syscalls
from lading.testing._isolation_case import CAPABILITIES, SAFE, Case, Json, KitBase

UNSHARE_DENIED = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
}


def mount(where: str, kind: str, source: str, *options: str) -> Json:
    """A row of ``mounts``."""
    return {"destination": where, "type": kind, "source": source, "options": list(options)}


class View(KitBase):
    """``config.json`` as the container finds it."""

    def test_process_one(self, case: Case) -> None:
        """In a pid namespace of its own the init is process 1 and sees its own processes only."""
        case.expect("1\nsh", case.sh("echo $$; ps -o comm | tail -n +2 | grep -v ps | head -1"))

    def test_init_that_reaps(self, case: Case) -> None:
        """With the annotation for an init, process 1 reaps, and passes signals and the end on."""
        case.can("init")
        edit = lambda c: c.update(annotations={INIT_ANNOTATION: "true"})  # noqa: E731
        box = case.sleeping(edit=edit)
        box.exec("sh", "-c", "(sleep 0.01 &)")  # orphaned, it becomes process 1's
        states = (
            "for i in $(seq 200); do grep -hqs '^State:.Z' /proc/[0-9]*/status ||"
            " { echo reaped; break; }; sleep 0.02; done"
        )
        case.expect("reaped\n", box.exec("sh", "-c", states).out)
        box.signal(signal.SIGTERM)
        case.expect(128 + signal.SIGTERM, box.finish().code)

    def test_hostname(self, case: Case) -> None:
        """hostname is that of the config, and the host keeps its own."""
        before = os.uname().nodename
        case.expect("inside", case.sh("hostname"))
        case.expect(before, os.uname().nodename)

    def test_root(self, case: Case) -> None:
        """The rootfs recipe is the root, and can be written."""
        case.expect("", case.sh("echo x > /tmp/written"))
        case.expect("x\n", (case.tree / "tmp/written").read_text())

    def test_nothing_of_the_host_is_mounted(self, case: Case) -> None:
        """The mount table inside has the root and the config's mounts, none of the host's."""
        points = case.sh("cut -d' ' -f5 /proc/self/mountinfo").split()
        known = ("/proc", "/dev", "/sys")
        case.expect([], [p for p in points if p != "/" and not p.startswith(known)])

    def test_read_only_root(self, case: Case) -> None:
        """root.readonly makes the root read-only."""
        script = "touch /tmp/x 2>&1 || true"
        out = case.sh(script, edit=lambda c: c["root"].update(readonly=True))
        assert "Read-only file system" in out, f"got {out!r}; rule: {case.rule}"

    def test_environment_and_directory(self, case: Case) -> None:
        """The process has the environment (a HOME besides at most) and directory of the config."""

        def edit(config: Json) -> None:
            config["process"].update(env=["PATH=/bin", "A=1 2", "E="], cwd="/var")

        out = case.sh("pwd; env -u PWD -u SHLVL -u OLDPWD -u HOME | sort", edit=edit)
        case.expect("/var\nA=1 2\nE=\nPATH=/bin", out)

    def test_missing_directory_is_made(self, case: Case) -> None:
        """A working directory that does not exist is made."""
        case.expect("/a/b", case.sh("pwd", edit=lambda c: c["process"].update(cwd="/a/b")))

    def test_user(self, case: Case) -> None:
        """The process has the user, group and additional groups of the config, and no others."""
        user = {"uid": 5, "gid": 6, "additionalGids": [7, 8]}
        out = case.sh("id -u; id -g; id -G", edit=lambda c: c["process"].update(user=user))
        case.expect("5\n6\n6 7 8", out)

    def test_umask(self, case: Case) -> None:
        """user.umask is the process's umask."""
        user = {"uid": 0, "gid": 0, "umask": 0o27}
        case.expect("0027", case.sh("umask", edit=lambda c: c["process"].update(user=user)))

    def test_capabilities(self, case: Case) -> None:
        """The capability sets are the config's."""
        out = case.sh("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status").split()
        wanted = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
        wanted |= {"CAP_NET_RAW": 13, "CAP_MKNOD": 27}
        bits = sum(1 << wanted[name] for name in CAPABILITIES)
        case.expect([bits] * 3, [int(word, 16) for word in out[1::2]])

    def test_another_user_has_no_capabilities(self, case: Case) -> None:
        """Without ambient capabilities a user other than root has none in effect."""
        edit = lambda c: c["process"].update(user={"uid": 5, "gid": 5})  # noqa: E731
        out = case.sh("grep -E 'Cap(Prm|Eff)' /proc/self/status", edit=edit).split()
        case.expect([0, 0], [int(word, 16) for word in out[1::2]])

    def test_ambient_capabilities(self, case: Case) -> None:
        """Ambient capabilities stay in effect for a user other than root."""

        def edit(config: Json) -> None:
            config["process"]["user"] = {"uid": 5, "gid": 5}
            for kind in ("inheritable", "ambient"):
                config["process"]["capabilities"][kind] = ["CAP_NET_RAW"]

        out = case.sh("grep -E 'Cap(Eff|Amb)' /proc/self/status", edit=edit).split()
        case.expect([1 << 13] * 2, [int(word, 16) for word in out[1::2]])

    def test_no_new_privileges(self, case: Case) -> None:
        """noNewPrivileges is set when asked for, and only then."""
        script = "grep NoNewPrivs /proc/self/status | tail -c 2"
        case.expect("0", case.sh(script))
        edit = lambda c: c["process"].update(noNewPrivileges=True)  # noqa: E731
        case.expect("1", case.sh(script, edit=edit))

    def test_limits(self, case: Case) -> None:
        """rlimits are set."""
        rows = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 101}]
        edit = lambda c: c["process"].update(rlimits=rows)  # noqa: E731
        case.expect("99\n101", case.sh("ulimit -Sn; ulimit -Hn", edit=edit))

    def test_oom_score(self, case: Case) -> None:
        """oomScoreAdj is set."""
        edit = lambda c: c["process"].update(oomScoreAdj=77)  # noqa: E731
        case.expect("77", case.sh("cat /proc/self/oom_score_adj", edit=edit))

    def test_oom_score_of_exec(self, case: Case) -> None:
        """oomScoreAdj of an exec'd process is its own."""
        box = case.sleeping()
        out = box.exec("cat", "/proc/self/oom_score_adj", oomScoreAdj=78).out
        case.expect("78", out.strip())

    def test_seccomp(self, case: Case) -> None:
        """A system call that the profile denies fails with the profile's error."""
        case.can("seccomp")

        def edit(config: Json) -> None:
            config["linux"]["seccomp"] = UNSHARE_DENIED
            for names in config["process"]["capabilities"].values():
                names.append("CAP_SYS_ADMIN")

        out = case.sh("unshare -m true 2>&1 || true; grep Seccomp: /proc/self/status", edit=edit)
        assert "not supported" in out, f"expected error 95, got {out!r}; rule: {case.rule}"
        assert out.endswith("2"), f"expected a filter, got {out!r}; rule: {case.rule}"

    def test_seccomp_holds_for_exec(self, case: Case) -> None:
        """An exec'd process has the container's filter too."""
        case.can("seccomp")
        box = case.sleeping(edit=lambda c: c["linux"].update(seccomp=UNSHARE_DENIED))
        out = box.exec("grep", "Seccomp:", "/proc/self/status").out
        case.expect("2", out.split()[-1])

    def test_masked_paths(self, case: Case) -> None:
        """A masked file reads as empty, a masked directory has nothing; missing ones are fine."""
        (case.tree / "var/secrets").mkdir()
        (case.tree / "var/secrets/key").write_text("secret")
        (case.tree / "etc/token").write_text("secret")
        paths = ["/var/secrets", "/etc/token", "/no/such/path"]
        edit = lambda c: c["linux"].update(maskedPaths=paths)  # noqa: E731
        case.expect("", case.sh("cat /etc/token; ls -A /var/secrets", edit=edit))

    def test_readonly_paths(self, case: Case) -> None:
        """A read-only path cannot be written."""
        edit = lambda c: c["linux"].update(readonlyPaths=["/tmp", "/proc/sys", "/none"])  # noqa: E731
        out = case.sh("touch /tmp/x 2>&1; echo 1 2>&1 > /proc/sys/kernel/sysrq; true", edit=edit)
        case.expect(False, (case.tree / "tmp/x").exists())
        assert "Read-only file system" in out, f"got {out!r}; rule: {case.rule}"

    def test_devices(self, case: Case) -> None:
        """/dev has the default devices and links, and those of linux.devices."""
        node = {"path": "/dev/own/node", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640}

        def edit(config: Json) -> None:
            config["linux"]["devices"] = [node | {"uid": 3, "gid": 4}]

        names = "null zero full random urandom tty"
        out = case.sh(
            f"cd /dev; for n in {names}; do stat -c %F $n; done; readlink fd; readlink ptmx;"
            "echo x > null; head -c 3 zero | od -An -tx1; stat -c '%a %u %g %t:%T' own/node",
            edit=edit,
        )  # fmt: skip
        wanted = ["character special file"] * 6 + ["/proc/self/fd", "pts/ptmx", " 00 00 00"]
        case.expect([*wanted, "640 3 4 1:5"], out.split("\n"))

    def test_device_rules(self, case: Case) -> None:
        """A device that resources.devices does not allow cannot be opened."""
        case.can("devices")
        script = "mknod /dev/m c 1 11; cat /dev/m 2>&1 || true; cat /dev/null && echo fine"
        out = case.sh(script)
        assert "Operation not permitted" in out, f"got {out!r}; rule: {case.rule}"
        case.expect("fine", out.split("\n")[-1])

    def test_bind_mounts(self, case: Case) -> None:
        """Volumes appear, read-only when they say so; mount points are made."""
        (case.root / "volume").mkdir()
        (case.root / "volume/file").write_text("v")
        source = str(case.root / "volume")
        rows = [
            mount("/new/place", "bind", source, "rbind", "rw"),
            mount("/ro", "bind", source, "rbind", "ro"),
            mount("/etc/one", "bind", f"{source}/file", "bind"),
        ]
        script = "cat /new/place/file /etc/one; echo w > /new/place/w; touch /ro/x 2>&1 || true"
        out = case.sh(script, edit=lambda c: c["mounts"].extend(rows))
        case.expect(True, out.startswith("vv"))
        assert "Read-only file system" in out, f"got {out!r}; rule: {case.rule}"
        case.expect("w\n", (case.root / "volume/w").read_text())

    def test_mount_options(self, case: Case) -> None:
        """Flags and data options of mounts are honoured."""
        row = mount("/new", "tmpfs", "tmpfs", *SAFE, "size=64k", "mode=710")
        script = "stat -c %a /new; grep ' /new ' /proc/mounts"
        out = case.sh(script, edit=lambda c: c["mounts"].append(row))
        words = set(out.replace(",", " ").split())
        case.expect(True, {"710", "size=64k", *SAFE} <= words)

    def test_links_in_the_image_stay_inside(self, case: Case) -> None:
        """A mount point that is a link of the image's is followed inside the root only."""
        (case.root / "outside").mkdir()
        (case.root / "volume").mkdir()
        (case.root / "volume/file").write_text("v")
        (case.tree / "trap").symlink_to(str(case.root / "outside"))
        row = mount("/trap/below", "bind", str(case.root / "volume"), "rbind")
        outcome = None
        try:
            outcome = case.sh("cat /trap/below/file", edit=lambda c: c["mounts"].append(row))
        except AssertionError:
            raise
        except Exception:  # refusing it is fine, too
            outcome = "v"
        case.expect("v", outcome)
        case.expect([], os.listdir(case.root / "outside"))

    def test_no_descriptors_leak(self, case: Case) -> None:
        """A process inherits 0, 1 and 2, whatever its monitor has open."""
        leaked = os.open(case.root, os.O_RDONLY)
        os.set_inheritable(leaked, True)
        try:
            box = case.sleeping()
            out = box.exec("sh", "-c", "ls -l /proc/self/fd").out
            first = case.sh("ls -l /proc/self/fd")
        finally:
            os.close(leaked)
        for listing in (out, first):
            assert str(case.root) not in listing, f"got {listing!r}; rule: {case.rule}"
            # The fourth is the directory that is being listed.
            numbers = {line.split()[8] for line in listing.splitlines() if " -> " in line}
            case.expect(set(), numbers - {"0", "1", "2", "3"})

    def test_terminal(self, case: Case) -> None:
        """With terminal the streams are a terminal of the container's own devpts."""
        size = {"height": 33, "width": 77}
        box = case.box(
            "sh", "-c", "tty; stty size; ls -l /proc/self/fd/1; : < /dev/tty && echo controlled",
            edit=lambda c: c["process"].update(terminal=True, consoleSize=size),
        )  # fmt: skip
        assert box.started is not None
        console = box.started.console
        assert console >= 0, f"expected a console, got {console}; rule: {case.rule}"
        box.start()
        words = read_terminal(console).split()
        os.close(console)
        case.expect(["/dev/pts/0", "33", "77"], words[:3])
        case.expect(["controlled"], words[-1:])
        case.expect(0, box.wait())

    def test_sysctl(self, case: Case) -> None:
        """sysctl sets kernel parameters of the container's namespaces only."""
        path = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
        before = Path(path).read_text()
        rows = {"net.ipv4.ip_unprivileged_port_start": "77", "kernel.msgmax": "9999"}
        script = f"cat {path} /proc/sys/kernel/msgmax"
        case.expect("77\n9999", case.sh(script, edit=lambda c: c["linux"].update(sysctl=rows)))
        case.expect(before, Path(path).read_text())

    def test_network_namespace_by_path(self, case: Case) -> None:
        """A "network" namespace may name a path."""
        case.can("netns-path")
        pinned = case.root / "netns"
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            theirs.send(b"made")
            theirs.recv(1)
            os._exit(0)
        ours.recv(4)
        namespaces.pin(child, "network", pinned)
        wanted = os.readlink(f"/proc/{child}/ns/net")
        ours.send(b"x")
        os.waitpid(child, 0)

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [r for r in rows if r["type"] != "network"]
            rows.append({"type": "network", "path": str(pinned)})

        try:
            case.expect(wanted, case.sh("readlink /proc/self/ns/net", edit=edit))
        finally:
            syscalls.umount2(str(pinned))

    @pytest.mark.parametrize("kind", ["network", "pid", "ipc", "uts", "cgroup"])
    def test_namespaces_of_the_host(self, case: Case, kind: str) -> None:
        """A namespace that the config does not have is the engine's, also for later processes."""

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [r for r in rows if r["type"] != kind]
            if kind == "uts":
                del config["hostname"]
            if kind == "cgroup":  # beside another's, as with most networks
                rows[:] = [r for r in rows if r["type"] != "ipc"]
                rows.append({"type": "ipc", "path": f"/proc/{other.pid}/ns/ipc"})

        other = case.sleeping()
        link = f"/proc/self/ns/{namespaces.KINDS[kind][1]}"
        box = case.sleeping(edit=edit)
        case.expect(os.readlink(link), os.readlink(link.replace("self", str(box.pid))))
        case.expect(os.readlink(link), box.exec("readlink", link).out.strip())

    def test_pid_namespace_of_another(self, case: Case) -> None:
        """A "pid" namespace may be another container's."""
        box = case.sleeping()

        def edit(config: Json) -> None:
            rows = config["linux"]["namespaces"]
            rows[:] = [r for r in rows if r["type"] != "pid"]
            rows.append({"type": "pid", "path": f"/proc/{box.pid}/ns/pid"})

        out = case.sh("ps -o comm; readlink /proc/self/ns/pid", edit=edit)
        assert "sleep" in out, f"expected the other's processes, got {out!r}; rule: {case.rule}"
        case.expect(os.readlink(f"/proc/{box.pid}/ns/pid"), out.split("\n")[-1])

    def test_user_namespace(self, case: Case) -> None:
        """In a user namespace root inside is the mapped user outside."""
        case.can("userns")
        outcome = case.run("sh", "-c", "id -u; cat /proc/self/uid_map; touch /tmp/mine", edit=remap)
        case.expect(["0", "0", "200000", "65536"], outcome.out.split())
        case.expect(200000, (case.tree / "tmp/mine").stat().st_uid)

    def test_root_with_mapped_owners(self, case: Case) -> None:
        """A mount of the rootfs with the option idmap shows root's files as root's inside."""
        case.can("userns")
        skip_unless_mappable(case.root)
        root = Mount("bind", str(case.tree), ("rbind", "rprivate", "idmap"))
        script = "stat -c %u /etc/passwd; touch /tmp/mine"
        box = case.box("sh", "-c", script, edit=remap, rootfs=(root,))
        box.start()
        case.expect("0\n", box.finish().out)
        case.expect(0, (case.tree / "tmp/mine").stat().st_uid)

    def test_exec_in_a_user_namespace(self, case: Case) -> None:
        """exec joins the user namespace too."""
        case.can("userns")
        box = case.sleeping(edit=remap)
        out = box.exec("sh", "-c", "id -u; readlink /proc/self/ns/user").out.split()
        case.expect(["0", os.readlink(f"/proc/{box.pid}/ns/user")], out)


def remap(config: Json) -> None:
    """Give a config a user namespace that maps 0 to 200000."""
    config["linux"]["namespaces"].append({"type": "user"})
    mapping = {"containerID": 0, "hostID": 200000, "size": 65536}
    config["linux"].update(uidMappings=[mapping], gidMappings=[mapping])


def skip_unless_mappable(place: Path) -> None:
    """Skip where the kernel cannot map the ids of a mount of this filesystem."""
    userns = namespaces.new_user_namespace([(0, 100000, 1)], [(0, 100000, 1)])
    try:
        os.close(mounts.bind_tree(Mount("bind", str(place), ("bind", "idmap")), userns))
    except OSError as error:
        pytest.skip(f"this filesystem cannot be id-mapped here: {error}")
    finally:
        os.close(userns)


def read_terminal(console: int) -> str:
    """What is written to a terminal until its last user is gone."""
    found = b""
    while True:
        select.select([console], [], [])
        try:
            part = os.read(console, 4096)
        except OSError:  # EIO: nobody has the other side open
            part = b""
        if not part:
            return found.decode()
        found += part
