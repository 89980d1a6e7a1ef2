"""The OCI config that a container gets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lading.containers import spec
from lading.containers.records import Container, MountPoint
from lading.containers.spec import Defaults, IdMapping, Inputs, User
from lading.errors import Invalid
from lading.hooks.common import Mount
from lading.hooks.isolation import INIT_ANNOTATION
from lading.model.docker import ContainerConfig, HostConfig


def inputs(
    host: HostConfig | None = None,
    config: ContainerConfig | None = None,
    mounts: tuple[MountPoint, ...] = (),
    **changes: Any,
) -> Inputs:
    container = Container(
        id="c" * 64,
        name="web",
        created="",
        image="i1",
        config=config or ContainerConfig(),
        host_config=host or HostConfig(),
        path="/bin/sh",
        args=("-c", "true"),
        filesystem="f",
        isolation="i",
        mounts=mounts,
        hosts_path="/d/hosts",
        hostname_path="/d/hostname",
        resolv_conf_path="/d/resolv.conf",
    )
    made = Inputs(container, User(), hostname="box", network="/run/netns/n1")
    return dataclasses.replace(made, **changes)


def build(*arguments: Any, **changes: Any) -> spec.Json:
    return spec.build(inputs(*arguments, **changes))


def mount_at(document: spec.Json, destination: str) -> spec.Json | None:
    found = [m for m in document["mounts"] if m["destination"] == destination]
    assert len(found) < 2, found
    return found[0] if found else None


def namespaces(document: spec.Json) -> dict[str, str]:
    return {n["type"]: n.get("path", "") for n in document["linux"]["namespaces"]}


def test_a_plain_container_is_confined_as_docker_confines() -> None:
    document = build()
    process, linux = document["process"], document["linux"]
    assert process["args"] == ["/bin/sh", "-c", "true"]
    assert process["cwd"] == "/"
    assert "HOME=/root" in process["env"]
    assert "HOSTNAME=box" in process["env"]
    assert len(process["capabilities"]["bounding"]) == 14
    assert "inheritable" not in process["capabilities"]
    assert namespaces(document) == {
        "mount": "",
        "network": "/run/netns/n1",
        "pid": "",
        "ipc": "",
        "uts": "",
        "cgroup": "",
    }
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert linux["cgroupsPath"] == f"/lading/{'c' * 64}"
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    sys = mount_at(document, "/sys")
    assert sys is not None
    assert "ro" in sys["options"]


def test_every_user_but_root_starts_without_effective_capabilities() -> None:
    capabilities = build(user=User(1000, 1000, (10,), "/home/u"))["process"]["capabilities"]
    assert (len(capabilities["bounding"]), capabilities["effective"]) == (14, [])


def test_privileged_is_the_way_round() -> None:
    document = build(HostConfig(privileged=True))
    assert "seccomp" not in document["linux"]
    assert document["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert document["linux"]["maskedPaths"] == []
    assert "CAP_SYS_ADMIN" in document["process"]["capabilities"]["effective"]
    assert "cgroup" in namespaces(build(HostConfig(privileged=True, cgroupns_mode="private")))


def test_host_modes_leave_namespaces_out() -> None:
    host = HostConfig(
        pid_mode="host", ipc_mode="host", uts_mode="host", cgroupns_mode="host", network_mode="host"
    )
    document = build(host, network=None)
    assert namespaces(document) == {"mount": ""}
    assert "hostname" not in document
    assert "net.ipv4.ping_group_range" not in document["linux"]["sysctl"]
    shm = mount_at(document, "/dev/shm")
    assert shm is not None
    assert shm["source"] == "/dev/shm"


def test_namespaces_of_another_container_are_named_by_path() -> None:
    document = build(
        HostConfig(pid_mode="container:x", ipc_mode="container:x"),
        joined={"pid": "/proc/7/ns/pid", "ipc": "/proc/7/ns/ipc"},
        shm="/run/x/shm",
    )
    assert namespaces(document)["pid"] == "/proc/7/ns/pid"
    shm = mount_at(document, "/dev/shm")
    assert shm is not None
    assert (shm["type"], shm["source"]) == ("bind", "/run/x/shm")


def test_no_shm_when_ipc_is_none_and_the_wanted_size_otherwise() -> None:
    assert mount_at(build(HostConfig(ipc_mode="none")), "/dev/shm") is None
    shm = mount_at(build(HostConfig(shm_size=1 << 20)), "/dev/shm")
    assert shm is not None
    assert f"size={1 << 20}" in shm["options"]


def test_user_mounts_come_in_order_and_hide_the_defaults_of_their_place() -> None:
    mounts = (
        MountPoint("bind", "/data/deep", source="/srv", rw=False),
        MountPoint("volume", "/data", name="v", source="/v"),
        MountPoint("bind", "/dev", source="/dev"),
        MountPoint("image", "/img", source="sha256:1"),
    )
    document = build(
        mounts=mounts,
        sources={"/data/deep": "/srv", "/data": "/v/_data", "/dev": "/dev"},
        images={"/img": [Mount("overlay", "overlay", ("lowerdir=/a:/b",))]},
    )
    places = [m["destination"] for m in document["mounts"]]
    assert places.index("/data") < places.index("/data/deep")
    assert "/dev/pts" not in places
    assert mount_at(document, "/data/deep") == {
        "destination": "/data/deep",
        "type": "bind",
        "source": "/srv",
        "options": ["rbind", "rprivate", "ro"],
    }
    image = mount_at(document, "/img")
    assert image is not None
    assert image["options"] == ["lowerdir=/a:/b", "rprivate"]


def test_read_only_root_has_read_only_files_of_the_engine() -> None:
    document = build(HostConfig(readonly_rootfs=True))
    hosts = mount_at(document, "/etc/hosts")
    assert document["root"]["readonly"] is True
    assert hosts is not None
    assert "ro" in hosts["options"]


def test_tmpfs_and_propagation() -> None:
    mounts = (MountPoint("bind", "/s", source="/s", propagation="rshared"),)
    document = build(HostConfig(tmpfs={"/t": "size=1m,exec"}), mounts=mounts, sources={"/s": "/s"})
    tmpfs = mount_at(document, "/t")
    assert tmpfs is not None
    assert tmpfs["options"] == ["rprivate", "nosuid", "nodev", "size=1m", "exec"]
    assert document["linux"]["rootfsPropagation"] == "shared"


def test_id_mappings_give_a_user_namespace() -> None:
    maps = (IdMapping(0, 100000, 65536),)
    document = build(network=None, uid_map=maps, gid_map=maps)
    assert "user" in namespaces(document)
    assert document["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    sys = mount_at(document, "/sys")
    assert sys is not None
    assert sys["type"] == "bind"


def test_sysctls_must_be_of_a_namespace_of_its_own() -> None:
    document = build(HostConfig(sysctls={"net.core.somaxconn": "9", "kernel.shmmax": "1"}))
    assert document["linux"]["sysctl"]["net.core.somaxconn"] == "9"
    for host in (
        HostConfig(sysctls={"vm.swappiness": "1"}),
        HostConfig(sysctls={"kernel.shmmax": "1"}, ipc_mode="host"),
    ):
        with pytest.raises(Invalid, match="sysctl"):
            build(host)


def test_init_and_terminal() -> None:
    document = build(HostConfig(init=True, console_size=[24, 80]), ContainerConfig(tty=True))
    assert document["annotations"][INIT_ANNOTATION] == "true"
    assert document["process"]["consoleSize"] == {"height": 24, "width": 80}
    assert "TERM=xterm" in document["process"]["env"]
    assert INIT_ANNOTATION not in build()["annotations"]
    assert INIT_ANNOTATION in build(defaults=Defaults(init=True))["annotations"]


def test_seccomp_can_be_left_out_or_given() -> None:
    assert "seccomp" not in build(HostConfig(security_opt=["seccomp=unconfined"]))["linux"]
    own = (
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}'
    )
    profile = build(HostConfig(security_opt=[f"seccomp={own}"]))["linux"]["seccomp"]
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert profile["syscalls"] == [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]
    assert "seccomp" not in build(defaults=Defaults(seccomp_profile=""))["linux"]


def test_seccomp_rules_follow_capabilities_and_machine() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "excludes": {"caps": ["CAP_SYS_ADMIN"]},
            },
            {"names": ["x"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["y"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["mips"]}},
        ],
    }
    from lading.containers.seccomp import resolved

    def allowed(*capabilities: str) -> list[str]:
        return [n for rule in resolved(profile, capabilities)["syscalls"] for n in rule["names"]]

    assert allowed() == ["clone"]
    assert allowed("CAP_BPF", "CAP_SYS_ADMIN") == ["bpf"]
