"""What is read from requests to create: mounts, limits, modes, options, names."""

from __future__ import annotations

import pytest

from lading.containers import checks, devices, merge, mounts, names, policy, resources, security
from lading.containers import signals as signal_names
from lading.containers.records import Container, MountPoint, State
from lading.errors import Invalid
from lading.model.docker import (
    BindOptions,
    ContainerConfig,
    DeviceMapping,
    Empty,
    HealthConfig,
    HostConfig,
    Mount,
    PortBinding,
    Resources,
    RestartPolicy,
    TmpfsOptions,
    Ulimit,
)


def collect(host: HostConfig, config: ContainerConfig | None = None) -> dict[str, MountPoint]:
    found = mounts.collect(config or ContainerConfig(), host, lambda ref: ())
    return {m.destination: m for m in found}


def test_binds_and_volumes_are_told_apart_by_the_slash() -> None:
    found = collect(HostConfig(binds=["/srv:/a:ro,rslave", "data:/b", "/c"]))
    assert (found["/a"].type, found["/a"].rw, found["/a"].propagation) == ("bind", False, "rslave")
    assert (found["/b"].type, found["/b"].name, found["/b"].anonymous) == ("volume", "data", False)
    assert (found["/c"].type, found["/c"].anonymous) == ("volume", True)


@pytest.mark.parametrize(
    "bind",
    ["", ":", "a:b:c:d", "/a:b", "data:rel", "/a:/", "/a:/b:xx", "/a:/b:ro,rw", "d:/b:rslave"],
)
def test_bad_binds(bind: str) -> None:
    with pytest.raises(Invalid, match="invalid"):
        collect(HostConfig(binds=[bind]))


def test_a_destination_is_taken_once() -> None:
    with pytest.raises(Invalid, match="Duplicate mount point: /a"):
        collect(HostConfig(binds=["/srv:/a", "data:/a/"]))
    with pytest.raises(Invalid, match="Duplicate mount point: /a"):
        collect(HostConfig(binds=["/srv:/a"], tmpfs={"/a": ""}))


def test_volumes_of_the_image_give_way_to_what_is_mounted_there() -> None:
    config = ContainerConfig(volumes={"/a": Empty(), "/b": Empty(), "/t": Empty()})
    found = collect(HostConfig(binds=["/srv:/a"], tmpfs={"/t": ""}), config)
    assert {d: m.type for d, m in found.items()} == {"/a": "bind", "/b": "volume"}


def test_volumes_from_take_over_mounts_and_may_make_them_read_only() -> None:
    theirs = (MountPoint("volume", "/d", name="v1", anonymous=True), MountPoint("bind", "/e"))
    found = mounts.collect(
        ContainerConfig(), HostConfig(volumes_from=["web:ro"]), lambda ref: theirs
    )
    assert [(m.destination, m.name, m.rw, m.anonymous) for m in found] == [
        ("/d", "v1", False, False),
        ("/e", "", False, False),
    ]


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (Mount(type="nfs", target="/a"), "mount type unknown"),
        (Mount(type="bind", source="/a"), "Target must not be empty"),
        (Mount(type="bind", target="/a"), "Source must not be empty"),
        (Mount(type="bind", source="a", target="/a"), "must be absolute"),
        (Mount(type="volume", target="/"), "can't be '/'"),
        (Mount(type="tmpfs", target="/a", source="x"), "Source must not be specified"),
        (Mount(type="volume", target="/a", bind_options=BindOptions()), "BindOptions must not"),
    ],
)
def test_bad_mounts(mount: Mount, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        mounts.parse_mount(mount)


def test_tmpfs_options_start_from_the_safe_ones() -> None:
    assert mounts.tmpfs_options([]) == ["noexec", "nosuid", "nodev"]
    assert mounts.tmpfs_options(["exec", "size=1m"]) == ["nosuid", "nodev", "exec", "size=1m"]
    found = mounts.parse_mount(
        Mount(type="tmpfs", target="/a", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700))
    )
    assert found.options == ("noexec", "nosuid", "nodev", "mode=700", "size=4096")
    with pytest.raises(Invalid, match="invalid tmpfs option"):
        mounts.tmpfs_options(["colour=red"])


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Resources(memory=1 << 20), "Minimum memory limit allowed is 6MB"),
        (Resources(memory=64 << 20, memory_swap=32 << 20), "Minimum memoryswap limit"),
        (Resources(memory_swap=64 << 20), "always set the Memory limit"),
        (Resources(memory_swappiness=101), "swappiness range is 0-100"),
        (Resources(memory=8 << 20, memory_reservation=16 << 20), "reservation"),
        (Resources(nano_cpus=10**9, cpu_quota=1000), "Nano CPUs and CPU Quota"),
        (Resources(nano_cpus=10**15), "range of CPUs is from 0.01"),
        (Resources(cpu_period=10), "can not be less than 1ms"),
        (Resources(cpuset_cpus="a-b"), "Invalid value a-b for cpuset cpus"),
        (Resources(cpuset_cpus="4095"), "Requested CPUs are not available"),
        (Resources(blkio_weight=5), "from 10 to 1000"),
        (Resources(ulimits=[Ulimit(name="colour")]), "invalid ulimit type: colour"),
        (Resources(ulimits=[Ulimit(name="nofile", soft=9, hard=8)]), "soft limit must be less"),
    ],
)
def test_bad_limits(limits: Resources, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        resources.check(limits)


def test_limits_become_what_the_kernel_needs() -> None:
    limits = HostConfig(memory=64 << 20, nano_cpus=1_500_000_000, pids_limit=10, cpu_shares=512)
    assert resources.oci(limits) == {
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "cpu": {"shares": 512, "period": 100_000, "quota": 150_000},
        "pids": {"limit": 10},
    }
    assert resources.oci(HostConfig()) == {}


def test_capabilities() -> None:
    names_of = security.capabilities
    assert names_of(HostConfig()) == list(security.DEFAULT_CAPABILITIES)
    assert "CAP_NET_ADMIN" in names_of(HostConfig(cap_add=["net_admin"]))
    assert "CAP_CHOWN" not in names_of(HostConfig(cap_drop=["CHOWN"]))
    assert names_of(HostConfig(cap_drop=["all"], cap_add=["CAP_KILL"])) == ["CAP_KILL"]
    every = names_of(HostConfig(cap_add=["ALL"], cap_drop=["SYS_ADMIN"]))
    assert set(security.all_capabilities()) - set(every) == {"CAP_SYS_ADMIN"}
    assert names_of(HostConfig(privileged=True)) == list(security.all_capabilities())
    with pytest.raises(Invalid, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        names_of(HostConfig(cap_add=["fly"]))


def test_security_options() -> None:
    read = security.parse_options(["no-new-privileges", "seccomp=unconfined", "apparmor=x"])
    assert (read.no_new_privileges, read.seccomp, read.apparmor) == (True, "", "x")
    assert security.parse_options(["no-new-privileges:false"]).no_new_privileges is False
    for wrong in ("colour", "colour=red", "seccomp={", "seccomp={}"):
        with pytest.raises(Invalid):
            security.parse_options([wrong])


@pytest.mark.parametrize(
    ("config", "host", "text"),
    [
        (ContainerConfig(working_dir="rel"), HostConfig(), "needs to be an absolute path"),
        (ContainerConfig(env=["=x"]), HostConfig(), "invalid environment variable: =x"),
        (ContainerConfig(hostname="a b"), HostConfig(), "invalid hostname format"),
        (ContainerConfig(stop_signal="NOPE"), HostConfig(), "Invalid signal: NOPE"),
        (ContainerConfig(healthcheck=HealthConfig(test=["CMD"], interval=5)), HostConfig(), "1ms"),
        (ContainerConfig(exposed_ports={"99999/tcp": Empty()}), HostConfig(), "invalid port"),
        (
            ContainerConfig(),
            HostConfig(port_bindings={"80/tcp": [PortBinding(host_port="x")]}),
            "x",
        ),
        (ContainerConfig(), HostConfig(oom_score_adj=2000), "range for oom score adj"),
        (ContainerConfig(), HostConfig(pid_mode="other"), "invalid PID mode: other"),
        (ContainerConfig(), HostConfig(sysctls={"kernel.panic": "1"}), "not whitelisted"),
        (ContainerConfig(), HostConfig(dns=["example"]), "invalid DNS address"),
        (ContainerConfig(), HostConfig(extra_hosts=["nocolon"]), "bad format for add-host"),
        (ContainerConfig(hostname="a"), HostConfig(uts_mode="host"), "hostname and the UTS mode"),
        (
            ContainerConfig(),
            HostConfig(auto_remove=True, restart_policy=RestartPolicy(name="always")),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:x", port_bindings={"80/tcp": []}),
            "port publishing and the container type network mode",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="host", sysctls={"net.ipv4.ip_forward": "1"}),
            "not allowed in host network namespace",
        ),
    ],
)
def test_contradictions_and_mistakes(config: ContainerConfig, host: HostConfig, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        checks.check(config, host)


def test_a_plain_request_passes() -> None:
    checks.check(ContainerConfig(hostname="web", env=["A=b"], cmd=["sh"]), HostConfig())


@pytest.mark.parametrize("name", ["web", "/web", "a", "a-b.c_d", "0x"])
def test_good_names(name: str) -> None:
    assert names.check_name(name) == name.lstrip("/")


@pytest.mark.parametrize("name", ["-web", "", "a b", "a/b", "ü1"])
def test_bad_names(name: str) -> None:
    with pytest.raises(Invalid, match="Invalid container name"):
        names.check_name(name)


def test_generated_names_avoid_those_in_use() -> None:
    taken: set[str] = set()
    for _ in range(200):
        taken.add(names.generate(taken))
    assert len(taken) == 200
    assert all(names.check_name(n) for n in taken)


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals(text: str, number: int) -> None:
    assert signal_names.number(text) == number


@pytest.mark.parametrize("text", ["", "0", "99", "SIGX", "RTMIN+99"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(Invalid, match="Invalid signal"):
        signal_names.number(text)


IMAGE = ContainerConfig(
    env=["PATH=/bin", "A=image"], cmd=["serve"], entrypoint=["/init"], working_dir="/srv", user="u"
)


@pytest.mark.parametrize(
    ("cmd", "entrypoint", "wanted"),
    [
        (None, None, ("/init", "serve")),
        (["x"], None, ("/init", "x")),
        (None, ["/e"], ("/e",)),
        (["x"], ["/e"], ("/e", "x")),
        (["x"], [""], ("x",)),
    ],
)
def test_command_is_the_users_over_the_images(
    cmd: list[str] | None, entrypoint: list[str] | None, wanted: tuple[str, ...]
) -> None:
    merged = merge.merged(ContainerConfig(cmd=cmd, entrypoint=entrypoint), IMAGE)
    assert merge.command(merged) == wanted


def test_no_command_at_all() -> None:
    with pytest.raises(Invalid, match="no command specified"):
        merge.command(merge.merged(ContainerConfig(entrypoint=[""]), IMAGE))


def test_environment_is_merged_and_can_be_unset() -> None:
    merged = merge.merged(ContainerConfig(env=["A=mine", "PATH"], tty=True), IMAGE)
    env = merge.environment(merged, "box")
    assert env == ["HOSTNAME=box", "TERM=xterm", "A=mine"]
    assert (merged.working_dir, merged.user) == ("/srv", "u")


def container(policy_name: str, **changes: object) -> Container:
    retries = changes.pop("retries", 0)
    host = HostConfig(
        restart_policy=RestartPolicy(name=policy_name, maximum_retry_count=retries)  # type: ignore[arg-type]
    )
    base = {
        "id": "c1",
        "name": "web",
        "created": "",
        "image": "i1",
        "config": ContainerConfig(),
        "host_config": host,
        "path": "sh",
        "args": (),
        "filesystem": "f",
        "isolation": "i",
    }
    return Container(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "code", "wanted"),
    [
        (container("no"), 1, False),
        (container("always"), 0, True),
        (container("always", manually_stopped=True), 0, False),
        (container("unless-stopped"), 0, True),
        (container("on-failure"), 0, False),
        (container("on-failure"), 1, True),
        (container("on-failure", retries=2, restart_count=2), 1, False),
        (container("on-failure", retries=2, restart_count=1), 1, True),
    ],
)
def test_restart_policies(record: Container, code: int, wanted: bool) -> None:
    assert policy.restarts(record, code) is wanted


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (container("always", has_run=True, manually_stopped=True), True),
        (container("always"), False),
        (container("unless-stopped", has_run=True, manually_stopped=True), False),
        (container("unless-stopped", has_run=True), True),
        (container("on-failure", has_run=True, state=State(exit_code=1)), True),
        (container("no", has_run=True), False),
    ],
)
def test_restart_policies_at_daemon_start(record: Container, wanted: bool) -> None:
    assert policy.restarts_at_boot(record) is wanted


def test_restart_delay_doubles_up_to_a_minute_and_starts_anew() -> None:
    delay, seen = 0.0, []
    for _ in range(12):
        delay = policy.next_delay(delay, 0.0)
        seen.append(delay)
    assert seen[:3] == [0.1, 0.2, 0.4]
    assert seen[-1] == 60.0
    assert policy.next_delay(60.0, 11.0) == 0.1


def test_devices_of_the_host_are_looked_up() -> None:
    nodes, rules = devices.oci(HostConfig(devices=[DeviceMapping(path_on_host="/dev/null")]))
    assert [(n["path"], n["type"], n["major"], n["minor"]) for n in nodes] == [
        ("/dev/null", "c", 1, 3)
    ]
    assert rules[0] == {"allow": False, "access": "rwm"}
    with pytest.raises(Invalid, match="no such file or directory"):
        devices.oci(HostConfig(devices=[DeviceMapping(path_on_host="/dev/no-such")]))
    with pytest.raises(Invalid, match="invalid device cgroup rule"):
        devices.check(HostConfig(device_cgroup_rules=["x 1:1 rwm"]))
